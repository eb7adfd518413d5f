"""Telling a Chinese file's encoding from its bytes, only where they leave no doubt."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

from tfapp.errors import DataError

_logger = logging.getLogger("tfapp")
# The Han characters that Chinese texts use most, simplified and traditional: four of ten that one meets.
_FREQUENT = frozenset(
    "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小"
    "么心多天而能好都然没日于起还发成事只作当想看文无开手用主行方又如前所本见经头面公同三已老从动两长很"
    "買賣這個來國說們為時會對後裡沒還發當開無經頭麼過學從動兩長點話給點電書房服務很太非常酒店买卖点话给"
)
_MARKS = frozenset("，。！？、；：“”《》（）…—　「」")
_CANDIDATES = ("gb18030", "big5", "shift_jis", "euc-kr", "euc-jp")
_FEWEST_HAN = 12
_FREQUENT_SHARE = 0.2
_CLEAR_LEAD = 2.0
_SAMPLE_BYTES = 1 << 20
_SURE_LETTERS = 4
"""So many characters beyond ASCII that are valid UTF-8 are no accident."""


def sure_encoding(data: bytes) -> str | None:
    """Tells the encoding of a file where its bytes leave no doubt.

    UTF-8 proves itself. Bytes that are not UTF-8 are told by how many of their Han characters are among those
    that Chinese texts use most; in a wrong encoding hardly any are.

    Args:
        data: The file's content, or its beginning up to the end of a line.

    Returns:
        ``"utf-8"``, ``"utf-16"``, ``"gb18030"`` (which holds GBK and GB2312) or ``"big5"``; None where in
        doubt.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if _decodes(data, "utf-8") is not None:
        return "utf-8"
    if mixed_lines(data) is not None:
        return None
    shares = sorted(((_chinese_share(data, name), name) for name in _CANDIDATES), reverse=True)
    (best, name), (second, _) = shares[:2]
    sure = best >= _FREQUENT_SHARE and best >= _CLEAR_LEAD * second
    return name if sure and name in ("gb18030", "big5") else None


def mixed_lines(data: bytes) -> tuple[int, int] | None:
    """Finds lines in two encodings: one in UTF-8 with characters beyond ASCII, and one that is not UTF-8.

    Args:
        data: The content of a file.

    Returns:
        The number of the first line of each kind, counted from 1; None where the file is all of one kind.
    """
    first_utf8 = first_other = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.isascii():
            continue
        text = _decodes(line, "utf-8")
        if text is None:
            first_other = first_other or number
        elif sum(ord(letter) > 127 for letter in text) >= _SURE_LETTERS:
            first_utf8 = first_utf8 or number
        if first_utf8 and first_other:
            return first_utf8, first_other
    return None


def resolve_encoding(path: Path, data: bytes, encoding: str) -> str:
    """Detects the encoding of a file where the user asks for it, and says what it found.

    Args:
        path: The file, for messages.
        data: Its content, or its beginning up to the end of a line.
        encoding: What the user named; ``"auto"`` to detect it.

    Returns:
        The encoding to read the file in.

    Raises:
        DataError: If it is to be detected, and the bytes leave doubt.
    """
    if encoding != "auto":
        _warn_of_utf8(path, data[:_SAMPLE_BYTES], encoding)
        return encoding
    found = sure_encoding(data)
    if found is None:
        raise DataError(
            f"{path}: {two_encodings(data) or 'its encoding cannot be told for sure.'} Pass the name of "
            "its encoding, such as encoding='gb18030', or save it as UTF-8."
        )
    if found != "utf-8":
        _logger.info("%s is read as %s, which its bytes show it to be", path, found)
    return found


def two_encodings(data: bytes) -> str:
    """Words that a file mixes two encodings; empty where it does not.

    Args:
        data: The content of a file.
    """
    mixed = mixed_lines(data)
    if mixed is None:
        return ""
    return f"it mixes encodings: line {mixed[0]} is UTF-8 and line {mixed[1]} is not; repair these lines."


def _warn_of_utf8(path: Path, data: bytes, encoding: str) -> None:
    if data.isascii() or codecs.lookup(encoding).name.startswith(("utf", "ascii")):
        return
    text = _decodes(data.rpartition(b"\n")[0] or data, "utf-8")
    if text is not None and sum(ord(letter) > 127 for letter in text) >= _SURE_LETTERS:
        _logger.warning(
            "%s is valid UTF-8 and is read as %s, as encoding=%r says; look whether its texts make sense",
            path,
            encoding,
            encoding,
        )


def _chinese_share(data: bytes, name: str) -> float:
    """Share of frequent ones among Han characters and other letters; 0 where there are too few."""
    text = _decodes(data[:_SAMPLE_BYTES].rpartition(b"\n")[0] if len(data) > _SAMPLE_BYTES else data, name)
    if text is None:
        return 0.0
    letters = [letter for letter in text if ord(letter) > 127 and letter not in _MARKS]
    if len(letters) < _FEWEST_HAN:
        return 0.0
    return sum(letter in _FREQUENT for letter in letters) / len(letters)


def _decodes(data: bytes, name: str) -> str | None:
    try:
        return data.decode(name)
    except UnicodeDecodeError:
        return None
