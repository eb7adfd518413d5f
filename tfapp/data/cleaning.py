"""Cleaning: rows without text or label, duplicates, conflicting labels and leaks, all of them counted."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfapp.data.readers.table import Array, Table
from tfapp.data.report import Dropped
from tfapp.errors import DataError

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_LARGEST_DROPPED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class CleanRows:
    """Rows of one source after cleaning, in their order.

    Attributes:
        table: The rows as they were read, which knows their places.
        positions: int64 array (rows,): positions in ``table`` of the rows that are kept.
        keys: Object array (rows,) of ``str``: what makes two texts the same text.
        names: Object array (rows,) of ``str``: the class names.
    """

    table: Table
    positions: npt.NDArray[np.int64]
    keys: Array
    names: Array

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, kept: Array) -> CleanRows:
        """Keeps some rows.

        Args:
            kept: Boolean mask (rows,) or positions among these rows.

        Returns:
            Those rows.
        """
        return CleanRows(self.table, self.positions[kept], self.keys[kept], self.names[kept])


def text_key(text: str) -> str:
    """Makes the key of a text: two texts with one key are the same text.

    Args:
        text: Any text.

    Returns:
        The text in Unicode NFC, white space folded to single blanks and none around it.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean(table: Table, names: Array, split: str) -> tuple[CleanRows, list[Dropped]]:
    """Drops rows without text or label, texts under several labels, and all but the first of equal texts.

    Args:
        table: Rows as they were read.
        names: Object array (rows,) of class names, None where missing.
        split: The split's name, for the report.

    Returns:
        The rows that are left, and what was dropped.

    Raises:
        DataError: If most rows have no text or no label, or a text or a class name holds characters that
            files cannot hold.
    """
    dropped: list[Dropped] = []
    keys = np.array([text_key(text) if text else "" for text in table.texts], dtype=object)
    empty = np.fromiter((not key or not key.strip(_INVISIBLE) for key in keys), bool, len(keys))
    unlabelled = np.fromiter((name is None for name in names), bool, len(names)) & ~empty
    for reason, rows, cure in (
        ("empty text", empty, "is text=... the column of the texts?"),
        ("missing label", unlabelled, "is label=... the column of the labels?"),
    ):
        _refuse_mostly(table, rows, split, reason, cure)
        _note(dropped, table, np.flatnonzero(rows), split, reason)
    positions = np.flatnonzero(~(empty | unlabelled)).astype(np.int64)
    rows = CleanRows(table, positions, keys[positions], names[positions])
    _refuse_unwritable(rows, "text", rows.keys)
    _refuse_unwritable(rows, "label", rows.names)
    _refuse_line_breaks(rows)
    codes = pd.factorize(rows.keys)[0]
    labels = pd.factorize(rows.names)[0]
    first = np.zeros(codes.max(initial=-1) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    conflicting = np.zeros(len(first), bool)
    conflicting[codes[labels != labels[first[codes]]]] = True
    conflict = conflicting[codes]
    duplicate = ~conflict & (first[codes] != np.arange(len(codes)))
    _note(dropped, table, positions[conflict], split, "conflicting labels")
    _note(dropped, table, positions[duplicate], split, "duplicate")
    return rows.take(~(conflict | duplicate)), dropped


def remove_leaks(
    rows: CleanRows, split: str, held_out: CleanRows, other: str
) -> tuple[CleanRows, list[Dropped]]:
    """Removes rows whose text also stands in a split that is held out.

    Args:
        rows: The rows that lose the text.
        split: Their split's name.
        held_out: The rows that keep it.
        other: The name of their split.

    Returns:
        The rows that are left, and what was dropped.
    """
    leaked = (
        pd.Index(held_out.keys).get_indexer(pd.Index(rows.keys)) >= 0
        if len(held_out)
        else np.zeros(len(rows), bool)
    )
    dropped: list[Dropped] = []
    _note(dropped, rows.table, rows.positions[leaked], split, f"also in {other}")
    return rows.take(~leaked), dropped


def _note(dropped: list[Dropped], table: Table, positions: Array, split: str, reason: str) -> None:
    if len(positions):
        dropped.append(Dropped(split, reason, len(positions), table.places(positions.tolist())))


def _refuse_mostly(table: Table, rows: Array, split: str, reason: str, cure: str) -> None:
    count = int(rows.sum())
    if count > _LARGEST_DROPPED_SHARE * len(table):
        place = table.place(int(np.flatnonzero(rows)[0]))
        raise DataError(
            f"{count:,} of {len(table):,} rows of {split} have {reason} (the first: {place}); {cure}"
        )


def _refuse_unwritable(rows: CleanRows, what: str, values: Array) -> None:
    joined = "\n".join(values)
    try:
        joined.encode("utf-8")
        fault, character = ("NUL", "\0") if "\0" in joined else ("", "")
    except UnicodeEncodeError as error:
        fault, character = "half a surrogate pair", joined[error.start]
    if fault:
        index = next(index for index, value in enumerate(values) if character in value)
        place = rows.table.place(int(rows.positions[index]))
        raise DataError(f"{place}: the {what} holds {fault} ({character!r}); repair or remove this row.")


def _refuse_line_breaks(rows: CleanRows) -> None:
    """Refuses class names that do not fit into files with one name a line, as releases have."""
    for name in pd.unique(rows.names):
        if len(name.splitlines()) > 1:
            index = int(np.flatnonzero(rows.names == name)[0])
            raise DataError(
                f"{rows.table.place(int(rows.positions[index]))}: the label {name!r} holds a line break, and "
                "class names are written one a line; rename the class."
            )
