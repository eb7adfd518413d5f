"""A symbol inside a Chinese word, as writers do who wish to pass a filter."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._chinese import is_han
from tfapp.data.edits._edit import others

_SYMBOLS = " *.\u00b7_-~|"


def zh_symbol(word: str, rng: np.random.Generator) -> list[str]:
    """Inserts a symbol between two characters of a Chinese word.

    Args:
        word: A word; one that is not of two or more Chinese characters has no candidate.
        rng: Draws one symbol for each place.

    Returns:
        One word for each place between two characters.
    """
    if len(word) < 2 or not is_han(word):
        return []
    drawn = rng.integers(len(_SYMBOLS), size=len(word) - 1)
    return others(word, (word[: at + 1] + _SYMBOLS[n] + word[at + 1 :] for at, n in enumerate(drawn)))
