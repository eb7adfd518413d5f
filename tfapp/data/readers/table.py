"""The table that every reader returns: texts, labels, and where each of them came from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfapp.errors import DataError, did_you_mean

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Columns:
    """The columns or keys that are read, and how messages speak of them.

    Attributes:
        content: The column of the texts, or of the paths of images.
        label: The column of the labels; empty when there are none.
        group: The column of the groups, which stay in one split; None when there are none.
        keyword: The argument that names the first of them: ``"text"`` or ``"image"``.
    """

    content: str
    label: str
    group: str | None = None
    keyword: str = "text"

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.content, self.label, self.group) if name]

    @property
    def noun(self) -> str:
        """What a cell of the first column is."""
        return "text" if self.keyword == "text" else "path"


@dataclass(frozen=True, eq=False)
class Table:
    """Texts or images with labels as they were read, each row with its place of origin.

    Attributes:
        texts: Object array (rows,) of ``str``: texts or the paths of images, or None where a row has none.
        labels: Array (rows,) of any type; None in an object array where a row has no label.
        numbers: int64 array (rows,): the row's number in its file, or -1 where a file is one row.
        file_index: int32 array (rows,): position in ``files``.
        files: What the rows were read from: file names, or words for data in memory.
        unit: What ``numbers`` counts: ``"row"`` (the header of a CSV file is row 1, as spreadsheets
            show it), ``"line"``, ``"record"`` (from 0) or ``"index"`` (from 0, for data in memory).
        groups: Object array (rows,) of ``str`` or None where a row is a group by itself; None without
            groups.
    """

    texts: Array
    labels: Array
    numbers: npt.NDArray[np.int64]
    file_index: npt.NDArray[np.int32]
    files: tuple[str, ...]
    unit: str = "row"
    groups: Array | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def origin(self) -> str:
        """Words what all rows were read from."""
        more = f" and {len(self.files) - 1:,} more" if len(self.files) > 1 else ""
        return self.files[0] + more

    def place(self, position: int) -> str:
        """Words where a row came from, such as ``"reviews.csv, row 12"``.

        Args:
            position: Position in this table, from 0.

        Returns:
            The file and, unless the whole file is one row, the number of the row.
        """
        file = self.files[int(self.file_index[position])]
        number = int(self.numbers[position])
        return file if number < 0 else f"{file}, {self.unit} {number}"

    def places(self, positions: Iterable[int], limit: int = 5) -> tuple[str, ...]:
        """Words where the first few of several rows came from.

        Args:
            positions: Positions in this table, from 0.
            limit: The largest number of rows to word.

        Returns:
            At most ``limit`` places.
        """
        return tuple(self.place(position) for _, position in zip(range(limit), positions, strict=False))


def make_table(
    texts: Array,
    labels: Array,
    *,
    file: str,
    unit: str,
    numbers: npt.NDArray[np.int64] | None = None,
    first: int = 1,
    groups: Any = None,
) -> Table:
    """Makes the table of one file or one object in memory.

    Args:
        texts: Object array (rows,) of ``str`` or None.
        labels: Array (rows,) of any type.
        file: What it was read from.
        unit: What row numbers count.
        numbers: The number of each row; counted from ``first`` when not given.
        first: The number of the first row.
        groups: Sequence (rows,) of the groups' names, of any type; None without groups.

    Returns:
        The table.
    """
    if numbers is None:
        numbers = np.arange(first, first + len(texts), dtype=np.int64)
    named = None if groups is None else name_groups(groups)
    return Table(texts, labels, numbers, np.zeros(len(texts), np.int32), (file,), unit, named)


def name_groups(values: Any) -> Array:
    """Names the group of every row.

    Args:
        values: Sequence (rows,) of values of any type.

    Returns:
        Object array (rows,) of ``str``, None where the value is missing or empty. Whole numbers are written
        as such: a missing value elsewhere in a column turns integers into floats.
    """
    series = pd.Series(values if isinstance(values, np.ndarray | pd.Series) else list(values), dtype=object)
    words = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in series]
    whole = [
        int(value) if isinstance(value, float | np.floating) and float(value).is_integer() else value
        for value in words
    ]
    names = [None if pd.isna(value) else str(value).strip() or None for value in whole]
    return np.array(names, dtype=object)


def concatenate(tables: Sequence[Table]) -> Table:
    """Joins the tables of several shards in their order.

    Args:
        tables: At least one table; all count the same unit.

    Returns:
        One table that still knows the file of each row.
    """
    if len(tables) == 1:
        return tables[0]
    offsets = np.cumsum([0, *(len(table.files) for table in tables[:-1])])
    kinds = {table.labels.dtype for table in tables}
    groups = [table.groups for table in tables]
    labels = [table.labels if len(kinds) == 1 else table.labels.astype(object) for table in tables]
    return Table(
        np.concatenate([table.texts for table in tables]),
        np.concatenate(labels),
        np.concatenate([table.numbers for table in tables]),
        np.concatenate(
            [table.file_index + np.int32(off) for table, off in zip(tables, offsets, strict=True)]
        ),
        tuple(file for table in tables for file in table.files),
        tables[0].unit,
        None if groups[0] is None else np.concatenate([part for part in groups if part is not None]),
    )


def check_columns(
    place: str, found: Sequence[str], wanted: Columns, *, noun: str = "column", hint: str = ""
) -> None:
    """Refuses a file that lacks a column.

    Args:
        place: Where the columns were found.
        found: The columns that there are.
        wanted: The columns to read.
        noun: What such a file calls its columns.
        hint: A sentence to add to the cure.

    Raises:
        DataError: If a column is missing, there twice, or named twice.
    """
    given = zip((wanted.keyword, "label", "group"), (wanted.content, wanted.label, wanted.group), strict=True)
    keys = {key: name for key, name in given if name}
    for key, other in itertools.combinations(keys, 2):
        if keys[key] == keys[other]:
            raise DataError(
                f"{key}={keys[key]!r} and {other}={keys[other]!r} name the same {noun} of {place}; "
                f"name {'two' if len(keys) == 2 else 'different ones'}."
            )
    for key, name in keys.items():
        if name not in found:
            raise DataError(
                f"{place} has no {noun} {name!r}; its {noun}s are {quoted(found)}."
                f"{did_you_mean(name, found)} Name the right one with {key}=...{hint}"
            )
        if list(found).count(name) > 1:
            raise DataError(f"{place} has the {noun} {name!r} more than once; rename one of them.")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Words a number of things.

    Args:
        number: How many.
        noun: The singular.
        plural: The plural; the singular with an s when empty.

    Returns:
        ``"1 row"`` or ``"1,200 rows"``.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def quoted(names: Iterable[object], limit: int = 20) -> str:
    """Lists names in quotes, the first ``limit`` of them.

    Args:
        names: The names.
        limit: The largest number of names to list.

    Returns:
        ``"'a', 'b' and 3 more"``.
    """
    known = list(names)
    listed = ", ".join(repr(name) for name in known[:limit])
    return listed if len(known) <= limit else f"{listed} and {len(known) - limit} more"
