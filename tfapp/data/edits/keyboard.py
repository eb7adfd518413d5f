"""The finger hits the key beside."""

from __future__ import annotations

from functools import cache

import numpy as np

from tfapp.data.edits._edit import inner, others

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")


def keyboard(word: str, rng: np.random.Generator) -> list[str]:
    """Replaces one letter inside a word by a neighbour on a QWERTY keyboard; upper case stays upper case.

    Args:
        word: A word of four letters or more; others, and letters that the keyboard lacks, have no candidate.
        rng: Draws one neighbour for each letter.

    Returns:
        One word for each place that can be hit wrongly.
    """
    places = [at for at in inner(word) if word[at].lower() in neighbours()]
    drawn = rng.random(len(places))
    candidates = []
    for at, number in zip(places, drawn, strict=True):
        keys = neighbours()[word[at].lower()]
        key = keys[int(number * len(keys))]
        candidates.append(word[:at] + (key.upper() if word[at].isupper() else key) + word[at + 1 :])
    return others(word, candidates)


@cache
def neighbours() -> dict[str, str]:
    """The letters that touch each letter's key, without the digits above."""
    touching = {}
    for row, keys in enumerate(_ROWS):
        for column, key in enumerate(keys):
            # Each row is shifted to the right by half a key.
            above = _ROWS[row - 1][column : column + 2] if row > 1 else ""
            below = _ROWS[row + 1][max(0, column - 1) : column + 1] if 0 < row < 3 else ""
            beside = keys[max(0, column - 1) : column] + keys[column + 1 : column + 2]
            touching[key] = beside + above + below
    return {key: keys for key, keys in touching.items() if key.isalpha()}
