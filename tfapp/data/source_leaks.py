"""What a source task must not learn: images that equal, or nearly equal, a held-out image of its target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, drop_rows
from tfapp.data.image_duplicates import Thumbnails, near_pairs
from tfapp.data.image_examination import Examination, examine_images
from tfapp.data.image_limits import MOST_MAX_PIXELS
from tfapp.data.near_duplicates import MOST_EXAMPLES
from tfapp.data.report import Dropped, NearDuplicates
from tfapp.errors import DataError

if TYPE_CHECKING:
    from tfapp.data.image import ImageData, ImageSplit

_HELD_OUT = "the target's held-out images"


def remove_target_leaks(
    rows: CleanRows,
    found: Examination,
    thumbnails: Thumbnails,
    target: ImageData,
    dropped: list[Dropped],
    *,
    near: bool,
) -> tuple[CleanRows, NearDuplicates | None]:
    """Removes training rows of a source that are among the validation or test images of its target.

    Args:
        rows: The training rows of the source.
        found: What their examination found.
        thumbnails: Their thumbnails; takes those of the target's images.
        target: The data of the target.
        dropped: Takes what is removed.
        near: Whether near duplicates are removed too, and not only reported.

    Returns:
        The rows that are left, and the near duplicates; None when there are none.

    Raises:
        DataError: If an image of the target cannot be read any more.
    """
    held_out = [target.test, target.validation]
    digests = np.array([digest for split in held_out for digest in split.digests], dtype=object)
    equal = np.isin(rows.keys.astype(str), digests.astype(str))
    rows = drop_rows(rows, equal, "train", f"also in {_HELD_OUT}", dropped)
    theirs = np.concatenate([_thumbnails_of(split, thumbnails) for split in held_out])
    positions = np.concatenate([theirs, found.thumbnails[rows.positions]])
    keys = np.concatenate([digests, rows.keys])
    names = [(split, row) for split in held_out for row in range(len(split))]
    alike = np.zeros(len(rows), bool)
    pairs, examples = 0, list[tuple[str, str]]()
    for left, right in near_pairs(thumbnails, positions, keys, first=len(theirs)):
        chosen = right >= len(theirs)
        one, two = right[chosen] - len(theirs), left[chosen]
        alike[one] = True
        pairs += len(one)
        missing = MOST_EXAMPLES - len(examples)
        for row, other in zip(one[:missing].tolist(), two[:missing].tolist(), strict=True):
            split, position = names[other]
            examples.append((rows.table.place(int(rows.positions[row])), split.images.name(position)))
    if near:
        rows = drop_rows(rows, alike, "train", f"nearly in {_HELD_OUT}", dropped)
    return rows, NearDuplicates("train", _HELD_OUT, pairs, tuple(examples)) if pairs else None


def _thumbnails_of(split: ImageSplit, thumbnails: Thumbnails) -> npt.NDArray[np.int64]:
    """Adds the thumbnails of a split; int64 array (rows,) of their positions."""
    found = examine_images(split.images, thumbnails, max_pixels=MOST_MAX_PIXELS)
    if not found.readable.all():
        row = int(np.flatnonzero(~found.readable)[0])
        raise DataError(
            f"{split.images.name(row)}, a {split.name} image of the target: {found.faults[row]}. Restore it, "
            "or prepare the target again."
        )
    return found.thumbnails
