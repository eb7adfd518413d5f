"""What an edit is, and which places of a word an edit of letters may touch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tfapp.data.edits._chinese import is_han

Edit = Callable[[str, np.random.Generator], list[str]]

SHORTEST = 4


def inner(word: str) -> range:
    """Positions of the letters that edits of letters may touch.

    The first and the last letter stay, and words below four letters stay whole: readers then still
    recognise the word (Pruthi et al. 2019, arXiv:1905.11268). Chinese words have edits of their own.

    Args:
        word: A word.

    Returns:
        The positions; none where the word should stay.
    """
    return range(0) if len(word) < SHORTEST or is_han(word) else range(1, len(word) - 1)


def others(word: str, candidates: Iterable[str]) -> list[str]:
    """The candidates that differ from the word, each once, in their order."""
    return [candidate for candidate in dict.fromkeys(candidates) if candidate != word]
