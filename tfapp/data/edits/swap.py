"""Two neighbouring letters change places."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._edit import inner, others


def swap(word: str, rng: np.random.Generator) -> list[str]:
    """Swaps two neighbouring letters inside a word; the first and the last letter stay.

    Args:
        word: A word of four letters or more; others have no candidate.
        rng: Not used: all swaps are returned.

    Returns:
        Every different word that one swap makes.
    """
    places = inner(word)[:-1]
    return others(word, (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in places))
