"""A Chinese character that sounds the same."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np

from tfapp.data.edits._chinese import common_characters, is_han, zh_package
from tfapp.data.edits._edit import others

_EACH = 3


def zh_homophone(word: str, rng: np.random.Generator) -> list[str]:
    """Replaces one character by a common one of the same pinyin, as an input method's slip does.

    Args:
        word: A word; one that is not of Chinese characters has no candidate.
        rng: Draws up to three homophones for each character; those of the same tone come first.

    Returns:
        Up to three words for each character.

    Raises:
        ConfigError: If pypinyin is not installed.
    """
    if not is_han(word):
        return []
    pypinyin = zh_package("pypinyin", "zh_homophone")
    sounds = pypinyin.lazy_pinyin(word, style=pypinyin.Style.TONE3, errors="ignore")
    if len(sounds) != len(word):  # a character without a known sound
        return []
    by_sound, toneless = _homophones()
    candidates = []
    for at, sound in enumerate(sounds):
        same = [c for c in by_sound.get(sound, ()) if c != word[at]]
        other = [c for c in toneless.get(sound.rstrip("12345"), ()) if c != word[at] and c not in same]
        drawn = [group[n] for group in (same, other) for n in rng.permutation(len(group))]
        candidates += [word[:at] + character + word[at + 1 :] for character in drawn[:_EACH]]
    return others(word, candidates)


@cache
def _homophones() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The common characters by their most usual pinyin, with and without the tone."""
    pypinyin = zh_package("pypinyin", "zh_homophone")
    by_sound: dict[str, list[str]] = defaultdict(list)
    toneless: dict[str, list[str]] = defaultdict(list)
    for character in sorted(common_characters()):
        sound = pypinyin.lazy_pinyin(character, style=pypinyin.Style.TONE3)[0]
        by_sound[sound].append(character)
        toneless[sound.rstrip("12345")].append(character)
    return dict(by_sound), dict(toneless)
