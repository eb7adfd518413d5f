"""The steps from tables to splits that texts and images share: naming classes, cleaning, reporting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, Unusable, clean, remove_leaks
from tfapp.data.labels import check_known_classes, find_classes, name_labels, order_classes
from tfapp.data.readers.table import Array, Table, counted, quoted
from tfapp.data.report import Dropped
from tfapp.data.split_data import SPLITS, Split
from tfapp.errors import DataError

LEAKS = (("validation", "test"), ("train", "test"), ("train", "validation"))
"""Which split loses a row to which, in this order."""


def clean_sources(
    tables: Mapping[str, Table], keys: Mapping[str, tuple[Array, Sequence[Unusable]]]
) -> tuple[dict[str, CleanRows], list[Dropped], tuple[str, ...]]:
    """Names the classes, cleans every source, and removes leaks between sources.

    Args:
        tables: The sources that were given, by split.
        keys: For each of them what makes rows equal, and which rows cannot be used.

    Returns:
        The rows that are left, what was dropped, and the class names in their order.

    Raises:
        DataError: If labels cannot be used.
    """
    named = {split: name_labels(table) for split, table in tables.items()}
    class_of = order_classes({name for names in named.values() for name in set(names.tolist()) - {None}})
    rows: dict[str, CleanRows] = {}
    dropped: list[Dropped] = []
    for split, table in tables.items():
        names = np.array([class_of.get(name) for name in named[split].tolist()], dtype=object)
        rows[split], left_out = clean(table, keys[split][0], names, split, keys[split][1])
        dropped += left_out
    classes = find_classes(rows["train"], class_of)
    lost = {class_of[name] for name in named["train"].tolist() if name is not None} - set(classes)
    if lost:
        raise DataError(
            f"{tables['train'].files[0]}: no usable rows are left of {quoted(sorted(lost))}, out of "
            f"{words_of(dropped, 'train')}. Repair its rows, or remove the class."
        )
    for split, part in rows.items():
        check_known_classes(part, split, classes)
    for split, other in LEAKS:
        if split in rows and other in rows:
            rows[split], left_out = remove_leaks(rows[split], split, rows[other], other)
            dropped += left_out
    return rows, dropped, classes


def number_classes(rows: Mapping[str, CleanRows], classes: Sequence[str]) -> dict[str, npt.NDArray[np.int32]]:
    """Numbers the classes of rows.

    Args:
        rows: The rows of every source.
        classes: The class names in their order.

    Returns:
        For each source an int32 array (rows,) of positions in ``classes``.
    """
    index = {name: number for number, name in enumerate(classes)}
    return {split: np.array([index[name] for name in part.names], np.int32) for split, part in rows.items()}


def refuse_empty(splits: Mapping[str, Split], dropped: Sequence[Dropped]) -> None:
    """Refuses splits without rows.

    Args:
        splits: The three splits.
        dropped: What was left out.

    Raises:
        DataError: If one is empty.
    """
    for split in SPLITS:
        if len(splits[split]) == 0:
            raise DataError(f"no rows are left for {split}: {words_of(dropped, split)}. Give other rows.")


def words_of(dropped: Sequence[Dropped], split: str) -> str:
    """Words what was left out of a split.

    Args:
        dropped: What was left out.
        split: The split.

    Returns:
        Such as ``"2 rows (duplicate), 1 row (missing label)"``.
    """
    return ", ".join(
        f"{counted(entry.rows, 'row')} ({entry.reason})" for entry in dropped if entry.split == split
    )


def report_facts(
    sources: Mapping[str, str], rows_read: Mapping[str, int], splits: Mapping[str, Split]
) -> dict[str, Any]:
    """Counts what a report tells of every kind of data.

    Args:
        sources: What was read, in words.
        rows_read: How many rows each source held.
        splits: The three splits.

    Returns:
        The first arguments of ``DataReport``.
    """
    class_counts = {}
    for split in SPLITS:
        part = splits[split]
        counts = np.bincount(part.labels, minlength=len(part.classes)).tolist()
        class_counts[split] = dict(zip(part.classes, counts, strict=True))
    return {
        "sources": dict(sources),
        "rows_read": dict(rows_read),
        "rows": {split: len(splits[split]) for split in SPLITS},
        "class_counts": class_counts,
    }
