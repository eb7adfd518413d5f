"""Cuts a text into words and what stands between them, so that putting them together gives the text back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from tfapp.data.edits._chinese import HAN, has_jieba, jieba_words

Chinese = Literal["auto", "jieba", "characters"]


@dataclass(frozen=True)
class Segments:
    """The words of a text and what stands before, between and after them.

    Attributes:
        words: The words, none of them empty.
        separators: What stands around them: one more than there are words, any of them may be empty.
    """

    words: tuple[str, ...]
    separators: tuple[str, ...]

    def join(self, changes: Mapping[int, str] | None = None) -> str:
        """Puts the text together.

        Args:
            changes: Other words by their positions; an empty one leaves the word out.

        Returns:
            The text; without changes, the very text that was cut.
        """
        words = list(self.words)
        for position, word in (changes or {}).items():
            words[position] = word
        pieces = [piece for pair in zip(self.separators, words, strict=False) for piece in pair]
        return "".join([*pieces, self.separators[-1]])


def segment(text: str, *, chinese: Chinese = "auto") -> Segments:
    """Cuts a text of any language into words.

    A word is a run of letters, digits and their combining marks, with apostrophes inside it (``don't``).
    Hyphens, underscores, punctuation, spaces, emoji and lone surrogates stand between words. Runs of Chinese
    characters are cut into words by jieba, or into single characters. Other writing without spaces (Thai,
    Japanese kana) is not cut further.

    Args:
        text: The text; may be empty.
        chinese: ``"jieba"``, ``"characters"``, or ``"auto"``: jieba where it is installed.

    Returns:
        The words and what stands around them; ``segment(text).join() == text``.

    Raises:
        ConfigError: If ``chinese`` is ``"jieba"`` and jieba is not installed.
    """
    words: list[str] = []
    separators: list[str] = []
    end = 0
    for match in _pattern().finditer(text):
        separators.append(text[end : match.start()])
        found = match.group()
        end = match.end()
        if match.lastgroup != "han":
            words.append(found)
            continue
        by_jieba = chinese == "jieba" or (chinese == "auto" and has_jieba())
        pieces = jieba_words(found) if by_jieba else list(found)
        words += pieces
        separators += [""] * (len(pieces) - 1)
    return Segments(tuple(words), (*separators, text[end:]))


@cache
def _pattern() -> re.Pattern[str]:
    # Python's \w has no combining marks, without which words of Hindi or decomposed French fall apart.
    marks = "".join(chr(code) for code in range(0x20000) if unicodedata.category(chr(code)).startswith("M"))
    letter = rf"(?:(?![{HAN}])[^\W_]|[{_ranges(marks)}\u200c\u200d])"
    word = rf"(?:(?![{HAN}])[^\W_]){letter}*(?:['\u2019]{letter}+)*"
    return re.compile(rf"(?P<han>[{HAN}]+)|{word}")


def _ranges(characters: str) -> str:
    """Words sorted characters as ranges of a regular expression's class."""
    ranges: list[tuple[int, int]] = []
    for code in map(ord, characters):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
