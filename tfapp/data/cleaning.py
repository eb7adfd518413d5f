"""Cleaning: unusable rows, duplicates, conflicting labels and leaks, all of them counted."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfapp.data.readers.table import Array, Table
from tfapp.data.report import MOST_NAMED, Dropped
from tfapp.errors import DataError

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_LARGEST_DROPPED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class CleanRows:
    """Rows of one source after cleaning, in their order.

    Attributes:
        table: The rows as they were read, which knows their places.
        positions: int64 array (rows,): positions in ``table`` of the rows that are kept.
        keys: Object array (rows,) of ``str``: what makes two texts, or two images, the same.
        names: Object array (rows,) of ``str``: the class names.
    """

    table: Table
    positions: npt.NDArray[np.int64]
    keys: Array
    names: Array

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def groups(self) -> Array | None:
        """Object array (rows,) of the groups' names, None where a row has none; None without groups."""
        return None if self.table.groups is None else self.table.groups[self.positions]

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


@dataclass(frozen=True, eq=False)
class Unusable:
    """Rows that cannot be used, for one reason.

    Attributes:
        reason: Why, for the report.
        rows: Boolean array (rows,).
        cure: A question to ask when it holds for most rows; such sources are refused when it is not empty.
    """

    reason: str
    rows: npt.NDArray[np.bool_]
    cure: str = ""


def text_keys(table: Table) -> tuple[Array, list[Unusable]]:
    """Makes the keys of texts, and finds those that are empty.

    Args:
        table: Rows as they were read.

    Returns:
        Object array (rows,) of ``str``, and the empty texts.
    """
    keys = np.array([text_key(text) if text else "" for text in table.texts], dtype=object)
    empty = np.fromiter((not key or not key.strip(_INVISIBLE) for key in keys), bool, len(keys))
    return keys, [Unusable("empty text", empty, "is text=... the column of the texts?")]


def clean(
    table: Table, keys: Array, names: Array, split: str, unusable: Sequence[Unusable]
) -> tuple[CleanRows, list[Dropped]]:
    """Drops rows that are unusable or have no label or several, and all but the first of equal rows.

    Args:
        table: Rows as they were read.
        keys: Object array (rows,) of ``str``: rows with one key are equal.
        names: Object array (rows,) of class names, None where missing.
        split: The split's name, for the report.
        unusable: Rows that cannot be used; no row twice.

    Returns:
        The rows that are left, and what was dropped.

    Raises:
        DataError: If most rows have no text or no label, or a text or a class name holds characters that
            files cannot hold.
    """
    dropped: list[Dropped] = []
    left_out = np.any([np.zeros(len(table), bool), *(entry.rows for entry in unusable)], axis=0)
    unlabelled = np.fromiter((name is None for name in names), bool, len(names)) & ~left_out
    for entry in (*unusable, Unusable("missing label", unlabelled, "is label=... the column of the labels?")):
        if entry.cure:
            _refuse_mostly(table, entry, split)
        _note(dropped, table, np.flatnonzero(entry.rows), split, entry.reason)
    positions = np.flatnonzero(~(left_out | unlabelled)).astype(np.int64)
    rows = CleanRows(table, positions, keys[positions], names[positions])
    check_writable(rows)
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
    """Removes rows that are equal to one of a split that is held out, or belong to a group of it.

    Args:
        rows: The rows that lose them.
        split: Their split's name.
        held_out: The rows that keep them.
        other: The name of their split.

    Returns:
        The rows that are left, and what was dropped.
    """
    dropped: list[Dropped] = []
    rows = drop_rows(rows, _occurs(rows.keys, held_out.keys), split, f"also in {other}", dropped)
    if rows.groups is not None and held_out.groups is not None:
        leaked = _occurs(rows.groups, held_out.groups) & ~pd.isna(rows.groups)
        rows = drop_rows(rows, leaked, split, f"group also in {other}", dropped)
    return rows, dropped


def drop_rows(
    rows: CleanRows, which: npt.NDArray[np.bool_], split: str, reason: str, dropped: list[Dropped]
) -> CleanRows:
    """Drops some rows and notes why.

    Args:
        rows: Rows of one split.
        which: Boolean array (rows,): those to drop.
        split: The split's name.
        reason: Why, for the report.
        dropped: Takes the note.

    Returns:
        The rows that are left.
    """
    _note(dropped, rows.table, rows.positions[which], split, reason)
    return rows.take(~which)


def check_writable(rows: CleanRows) -> None:
    """Refuses texts and class names that files cannot hold.

    Args:
        rows: Rows of one source.

    Raises:
        DataError: If there is one; the message names its row.
    """
    _refuse_unwritable(rows, "text", rows.keys)
    _refuse_unwritable(rows, "label", rows.names)
    _refuse_line_breaks(rows)


def _occurs(values: Array, among: Array) -> npt.NDArray[np.bool_]:
    if len(among) == 0:
        return np.zeros(len(values), bool)
    found: npt.NDArray[np.bool_] = pd.Index(among).unique().get_indexer(pd.Index(values)) >= 0
    return found


def _note(dropped: list[Dropped], table: Table, positions: Array, split: str, reason: str) -> None:
    if len(positions):
        places = table.places(positions.tolist(), limit=MOST_NAMED)
        dropped.append(Dropped(split, reason, len(positions), places))


def _refuse_mostly(table: Table, unusable: Unusable, split: str) -> None:
    count = int(unusable.rows.sum())
    if count > _LARGEST_DROPPED_SHARE * len(table):
        place = table.place(int(np.flatnonzero(unusable.rows)[0]))
        raise DataError(
            f"{count:,} of {len(table):,} rows of {split} have {unusable.reason} (the first: {place}); "
            f"{unusable.cure}"
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
