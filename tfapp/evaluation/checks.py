"""What every evaluation refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfapp.errors import DataError


def check_split(split: Any, classes: Sequence[str]) -> None:
    """Refuses a split that has no rows, or whose label numbers mean something else to the model.

    Args:
        split: Rows with labels.
        classes: The model's classes in their order.

    Raises:
        DataError: If they do not go together.
    """
    if not len(split):
        raise DataError(f"split {split.name!r} has no rows: give it some, or evaluate another split")
    if tuple(split.classes) != tuple(classes):
        raise DataError(
            f"split {split.name!r} has the classes {list(split.classes)}, but the model answers "
            f"{list(classes)}: they must be the same, in the same order"
        )
