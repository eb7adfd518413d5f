"""A letter too many."""

from __future__ import annotations

import string

import numpy as np

from tfapp.data.edits._edit import SHORTEST, inner, others


def insert(word: str, rng: np.random.Generator) -> list[str]:
    """Inserts one letter inside a word: any of a to z, or one of its own where it has other letters.

    Args:
        word: A word of four letters or more; others have no candidate.
        rng: Draws one letter for each place.

    Returns:
        One word for each place between two letters.
    """
    if len(word) < SHORTEST or not inner(word):
        return []
    letters = string.ascii_lowercase if word.isascii() else word
    drawn = rng.integers(len(letters), size=len(word) - 1)
    return others(word, (word[: at + 1] + letters[n] + word[at + 1 :] for at, n in enumerate(drawn)))
