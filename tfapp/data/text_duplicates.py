"""Near duplicates among texts: the same but for punctuation, width, case, or a few words."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SHINGLE = 8
_COMMON = 20
"""A run of characters that so many texts share is a phrase, and tells nothing."""


def squeezed(text: str) -> str:
    """Leaves of a text what a reader would call its words.

    Args:
        text: Any text.

    Returns:
        Its letters and digits in Unicode NFKC (full-width forms become half-width ones) without case.
    """
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def near_duplicates(texts: Sequence[str], *, share: float = 0.6) -> npt.NDArray[np.int64]:
    """Finds for each text the first one that it nearly equals.

    Two texts nearly equal each other when they are the same after `squeezed`, or when of the shorter one's
    runs of 8 characters at least `share` stand in the other, too. Works on any script, as no words are split.

    Args:
        texts: The texts.
        share: Share of common runs, between 0 and 1.

    Returns:
        int64 array (texts,): the position of the first text of the cluster that each belongs to, its own
        where there is no other.
    """
    first: dict[str, int] = {}
    keys = [squeezed(text) or text for text in texts]
    parents = [first.setdefault(key, position) for position, key in enumerate(keys)]
    runs = {position: _runs(key) for key, position in first.items()}
    holders: dict[str, list[int]] = defaultdict(list)
    for position, found in runs.items():
        for run in found:
            holders[run].append(position)
    common: dict[tuple[int, int], int] = defaultdict(int)
    for among in holders.values():
        if len(among) <= _COMMON:
            for later, two in enumerate(among):
                for one in among[:later]:
                    common[one, two] += 1
    for (one, two), number in sorted(common.items()):
        if number >= share * min(len(runs[one]), len(runs[two])):
            low, high = sorted((_root(parents, one), _root(parents, two)))
            parents[high] = low
    return np.array([_root(parents, position) for position in range(len(texts))], np.int64)


def _runs(key: str) -> set[str]:
    return {key[start : start + _SHINGLE] for start in range(len(key) - _SHINGLE + 1)}


def _root(parents: list[int], position: int) -> int:
    while parents[position] != position:
        position = parents[position]
    return position
