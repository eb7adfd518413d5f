"""Class names: labels of any type become strings in one stable order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfapp.data.cleaning import CleanRows
from tfapp.data.readers.table import Array, Table, counted, quoted
from tfapp.errors import DataError, did_you_mean

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def name_labels(table: Table) -> Array:
    """Names the label of every row.

    Integers, booleans, floats and strings become what ``str`` makes of them, strings without white space
    around them.

    Args:
        table: Rows as they were read.

    Returns:
        Object array (rows,) of ``str``, None where a label is missing (an empty cell or None).

    Raises:
        DataError: If a label is NaN, infinite, or no single value.
    """
    labels = table.labels
    kind = labels.dtype.kind
    if kind == "f":
        _refuse_non_finite(table, ~np.isfinite(labels))
    if kind in "biuf":
        values, codes = np.unique(labels, return_inverse=True)
        return np.array([str(value) for value in values], dtype=object)[codes]
    if labels.dtype == object and pd.api.types.infer_dtype(labels, skipna=False) == "string":
        codes, uniques = pd.factorize(labels)
        names = np.array([_named(value) for value in uniques], dtype=object)[codes]
    else:
        names = np.array(
            [_named_value(table, index, value) for index, value in enumerate(labels)], dtype=object
        )
    _refuse_written_nan(table, names)
    return names


def order_classes(names: Iterable[str]) -> dict[str, str]:
    """Orders the class names: numbers by value, everything else by its characters.

    Where all names are numbers, ``"1.0"`` and ``"1"`` are one class, ``"1"``: a spreadsheet or a missing
    value elsewhere in a column turns integers into floats.

    Args:
        names: The names that occur.

    Returns:
        For each name that occurs the name of its class, in the order of the classes.
    """
    known = set(names)
    if all(_NUMBER.fullmatch(name) for name in known):
        by_value = sorted(known, key=lambda name: (float(name), name))
        return {
            name: str(int(name.partition(".")[0])) if _INTEGER.fullmatch(name) else name for name in by_value
        }
    return {name: name for name in sorted(known)}


def find_classes(rows: CleanRows, class_of: dict[str, str]) -> tuple[str, ...]:
    """Finds the classes of the training rows.

    Args:
        rows: The training rows, cleaned.
        class_of: What ``order_classes`` returned for all names that occur.

    Returns:
        The class names in their order.

    Raises:
        DataError: If there are fewer than two.
    """
    present = set(rows.names.tolist())
    classes = tuple(dict.fromkeys(name for name in class_of.values() if name in present))
    if len(classes) < 2:
        found = f"only the class {classes[0]!r}" if classes else "no class"
        raise DataError(
            f"{rows.table.files[0]}: the usable rows hold {found}; a classifier needs at least two. "
            "Is label=... the column of the labels?"
        )
    return classes


def check_known_classes(rows: CleanRows, split: str, classes: tuple[str, ...]) -> None:
    """Refuses rows whose class does not occur in training.

    Args:
        rows: The rows of one split, cleaned.
        split: The split's name.
        classes: The class names of the training rows.

    Raises:
        DataError: If there is such a row.
    """
    unknown = np.flatnonzero(~np.isin(rows.names.astype(str), classes))
    if len(unknown) == 0:
        return
    name = rows.names[unknown[0]]
    others = sorted(set(rows.names[unknown].tolist()) - {name})
    raise DataError(
        f"{rows.table.place(int(rows.positions[unknown[0]]))}: the label {name!r} of {split} does not occur "
        f"in the training rows, whose classes are {quoted(classes)}.{did_you_mean(name, classes)}"
        f"{f' Neither do {quoted(others, 5)}.' if others else ''} Correct {counted(len(unknown), 'row')} of "
        f"{split}, remove them, or add training rows of that class."
    )


def check_class_sizes(
    labels: npt.NDArray[np.int32], classes: tuple[str, ...], drawn: Sequence[str], left_out: str
) -> None:
    """Refuses classes that have too few rows to be in every split that is drawn.

    Args:
        labels: int32 array (rows,): class indices of the training rows.
        classes: The class names.
        drawn: The splits that are to be drawn from these rows.
        left_out: What cleaning left out, in words.

    Raises:
        DataError: If there is such a class.
    """
    needed = 1 + len(drawn)
    counts = np.bincount(labels, minlength=len(classes))
    small = [f"{classes[index]!r} ({counts[index]})" for index in np.flatnonzero(counts < needed)]
    if small:
        raise DataError(
            f"{counted(len(small), 'class', 'classes')} with fewer than {counted(needed, 'row')}, one each "
            f"for {', '.join(['train', *drawn])}: "
            f"{', '.join(small[:10])}{' ...' if len(small) > 10 else ''}. "
            f"{f'Cleaning left out {left_out}. ' if left_out else ''}"
            "Add rows, merge or remove these classes, or give the splits as files of their own."
        )


def _named(value: str) -> str | None:
    return unicodedata.normalize("NFC", value.strip()) or None


def _named_value(table: Table, index: int, value: Any) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, str):
        return _named(value)
    if isinstance(value, bytes):
        try:
            return _named(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{table.place(index)}: the label {value!r:.60} is not UTF-8; decode it first."
            ) from error
    if isinstance(value, float | np.floating) and not np.isfinite(value):
        _refuse_non_finite(table, np.array([_is_non_finite(label) for label in table.labels]))
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        raise DataError(
            f"{table.place(index)}: the label is {value!r:.60}; every row needs one single value."
        )
    return _named(str(value))


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, float | np.floating) and not np.isfinite(value)


def _refuse_non_finite(table: Table, refused: Array) -> None:
    positions = np.flatnonzero(refused)
    if len(positions):
        more = f" (and {counted(len(positions) - 1, 'more row')})" if len(positions) > 1 else ""
        raise DataError(
            f"{table.place(int(positions[0]))}{more}: the label is {table.labels[positions[0]]}, no class; "
            "label or remove such rows."
        )


def _refuse_written_nan(table: Table, names: Array) -> None:
    """Refuses the word nan among numbers: there it is a number that is missing, not a class."""
    known = {name for name in pd.unique(pd.Series(names, dtype=object)) if name is not None}
    written = {name for name in known if name.lower() == "nan"}
    if written and known != written and all(_NUMBER.fullmatch(name) for name in known - written):
        _refuse_non_finite(table, np.isin(names.astype(str), list(written)))
