"""Some rows of a split, drawn: splits are often sorted by class, and their first rows show few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfapp.data.image_store import ImageStore
from tfapp.data.split_data import Split

_Whole = TypeVar("_Whole", bound=np.integer)


def draw_numbers(numbers: npt.NDArray[_Whole], count: int, *, seed: int = 0) -> npt.NDArray[_Whole]:
    """Draws from ascending numbers without replacement, and keeps their order.

    Args:
        numbers: Such as rows ``(candidates,)``.
        count: How many; all where there are fewer.
        seed: Decides which, at least 0.

    Returns:
        ``(min(count, candidates),)``.
    """
    if count >= len(numbers):
        return numbers
    return np.sort(np.random.default_rng(seed).permutation(numbers)[:count])


def draw_rows(
    split: Split, count: int, *, seed: int = 0
) -> tuple[Sequence[Any], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Draws rows without replacement, in the order of the split.

    Args:
        split: Rows with labels.
        count: How many; all where there are fewer.
        seed: Decides which, at least 0.

    Returns:
        Their features, their labels int32 ``(rows,)``, and where they stand in the split, int64 ``(rows,)``.
    """
    rows = draw_numbers(np.arange(len(split)), count, seed=seed)
    features = split.features
    if isinstance(features, ImageStore):
        return features.take(rows), np.asarray(split.labels)[rows], rows
    return tuple(features[row] for row in rows.tolist()), np.asarray(split.labels)[rows], rows
