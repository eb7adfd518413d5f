"""Fonts for pictures: families that together have the letters to draw, so that none becomes a box."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache

_logger = logging.getLogger("tfapp")
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Noto Sans CJK JP",
)
_DEFAULT = "DejaVu Sans"  # comes with matplotlib
_LAST_RESORT = "Last Resort"  # has every letter, each as a box


def families_for(texts: Iterable[str]) -> tuple[list[str], frozenset[str]]:
    """Chooses font families of this machine for some texts, the one of matplotlib first.

    Fonts that were installed after matplotlib last looked are found, too.

    Args:
        texts: What is to be drawn.

    Returns:
        The families in the order in which a letter is looked for, and the letters that none has; a warning
        tells of these once.
    """
    letters = frozenset(letter for text in texts for letter in text if letter.isprintable())
    families, missing = _chosen(letters)
    if missing:
        _warn(any(_is_han(letter) for letter in missing))
    return list(families), missing


@cache
def _chosen(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    families: list[str] = [_DEFAULT]
    missing = letters - _letters(_DEFAULT)
    for renew in (False, True):
        if not missing:
            break
        if renew and not _find_new_fonts():
            break
        for family in _known(_FAMILIES):
            if not missing:
                break
            if missing & _letters(family) and family not in families:
                families.append(family)
                missing -= _letters(family)
    return tuple(families), frozenset(missing)


def _known(first: tuple[str, ...]) -> list[str]:
    """The families of this machine, those that are wanted first."""
    from matplotlib import font_manager

    regular = [font for font in font_manager.fontManager.ttflist if font.style == "normal"]
    found = {font.name for font in regular if font.weight in (400, "normal", "regular")}
    others = sorted(name for name in found - set(first) if not name.startswith(_LAST_RESORT))
    return [name for name in first if name in found] + others


def _letters(family: str) -> frozenset[str]:
    from matplotlib import font_manager

    return _charmap(font_manager.findfont(family))


@cache
def _charmap(file: str) -> frozenset[str]:
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return frozenset()


@cache
def _find_new_fonts() -> bool:
    """Adds fonts that matplotlib's stored list lacks; tells whether there were any."""
    from matplotlib import font_manager

    listed = {font.fname for font in font_manager.fontManager.ttflist}
    new = [file for file in font_manager.findSystemFonts() if file not in listed]
    for file in new:
        try:
            font_manager.fontManager.addfont(file)
        except (OSError, RuntimeError, ValueError):
            continue
    return bool(new)


@cache
def _warn(han: bool) -> None:
    package = " such as Noto Sans CJK (Debian: fonts-noto-cjk)" if han else ""
    _logger.warning(
        "no font of this machine has all letters of the class names: classes are drawn by number; install a "
        "font%s",
        package,
    )


def _is_han(letter: str) -> bool:
    return "\u2e80" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or letter >= "\U00020000"
