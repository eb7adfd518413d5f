"""Two characters of a Chinese word change places, so that jieba finds other words."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._chinese import is_han, is_jieba_word
from tfapp.data.edits._edit import others


def zh_swap(word: str, rng: np.random.Generator) -> list[str]:
    """Swaps neighbouring characters of a word where the result is no word of jieba's: its boundaries move.

    Readers of Chinese hardly notice such swaps, while a reversed word that is a word itself has another
    meaning and is left out.

    Args:
        word: A word; one that is not of two or more Chinese characters has no candidate.
        rng: Not used: all swaps are returned.

    Returns:
        The words that one swap makes and that jieba's dictionary lacks.

    Raises:
        ConfigError: If jieba is not installed.
    """
    if len(word) < 2 or not is_han(word):
        return []
    places = range(len(word) - 1)
    swapped = others(word, (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in places))
    return [candidate for candidate in swapped if not is_jieba_word(candidate)]
