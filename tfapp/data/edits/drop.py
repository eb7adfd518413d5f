"""A letter is missing."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._edit import inner, others


def drop(word: str, rng: np.random.Generator) -> list[str]:
    """Leaves out one letter inside a word; the first and the last letter stay.

    Args:
        word: A word of four letters or more; others have no candidate.
        rng: Not used: all omissions are returned.

    Returns:
        Every different word that one omission makes.
    """
    return others(word, (word[:at] + word[at + 1 :] for at in inner(word)))
