"""Languages and the scripts that they are written in, which decide the pieces a cut vocabulary keeps."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

from tfapp.errors import ConfigError, nearest

_HAN = ("CJK", "IDEOGRAPHIC")
_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
_LATIN = ("LATIN",)
_CYRILLIC = ("CYRILLIC",)
_ARABIC = ("ARABIC",)
_DEVANAGARI = ("DEVANAGARI",)
# The first words of names of letters, marks and numbers that belong to no script of their own.
_SHARED = ("COMBINING", "VARIATION", "SUPERSCRIPT", "SUBSCRIPT", "VULGAR", "CIRCLED", "MODIFIER", "FULLWIDTH")


@dataclass(frozen=True)
class Language:
    """A language by which a vocabulary can be cut.

    Attributes:
        code: Its ISO 639 code.
        scripts: Its scripts, each by the first word of its characters' names in Unicode.
        by_words: Whether its script is shared by so many languages that its pieces are told by a list of its
            words; otherwise all pieces of its scripts are its own.
    """

    code: str
    scripts: tuple[str, ...]
    by_words: bool = False


def _whole(scripts: tuple[str, ...], *codes: str) -> dict[str, Language]:
    return {code: Language(code, scripts) for code in codes}


def _by_words(*codes: str) -> dict[str, Language]:
    return {code: Language(code, _LATIN, by_words=True) for code in codes}


LANGUAGES: dict[str, Language] = {
    **_by_words("ca", "cs", "da", "de", "en", "es", "fi", "fil", "fr", "hu", "id", "is", "it", "lt"),
    **_by_words("lv", "ms", "nb", "nl", "pl", "pt", "ro", "sh", "sk", "sl", "sv", "tr", "vi"),
    **_whole(_HAN, "zh"),
    **_whole((*_HAN, *_KANA), "ja"),
    **_whole((*_HAN, "HANGUL"), "ko"),
    **_whole(_CYRILLIC, "be", "bg", "kk", "mk", "ru", "sr", "uk"),
    **_whole(_ARABIC, "ar", "fa", "ur"),
    **_whole(_DEVANAGARI, "hi", "mr", "ne"),
    **_whole(("GREEK",), "el"),
    **_whole(("HEBREW",), "he"),
    **_whole(("THAI",), "th"),
    **_whole(("BENGALI",), "bn"),
    **_whole(("TAMIL",), "ta"),
    **_whole(("TELUGU",), "te"),
    **_whole(("GEORGIAN",), "ka"),
    **_whole(("ARMENIAN",), "hy"),
}


def find_languages(codes: tuple[str, ...]) -> list[Language]:
    """Finds languages by their codes.

    Args:
        codes: ISO 639 codes, such as ``("zh", "en")``.

    Returns:
        The languages.

    Raises:
        ConfigError: For an unknown code, with the ones that are known.
    """
    for code in codes:
        if code not in LANGUAGES:
            hint = nearest(code, LANGUAGES)
            if hint.startswith("did"):
                hint += f" All: {' '.join(sorted(LANGUAGES))}."
            raise ConfigError(f"unknown language {code!r}; {hint} Another one: give a corpus in it.")
    return [LANGUAGES[code] for code in codes]


@functools.cache
def script_of(character: str) -> str:
    """Tells the script of a character.

    Args:
        character: One character.

    Returns:
        The first word of its name in Unicode, such as ``"LATIN"``; empty for digits of ASCII, punctuation,
        symbols, and marks that no script has for itself.
    """
    if character.isascii():
        return "LATIN" if character.isalpha() else ""
    if unicodedata.category(character)[0] not in "LMN":
        return ""
    script = unicodedata.name(character, "").split(" ")[0]
    return "" if script in _SHARED else script
