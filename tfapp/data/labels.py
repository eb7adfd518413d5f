"""Class names: labels of any type become strings in one stable order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tfapp.data.readers.table import Array, Table
from tfapp.errors import DataError

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

    Where all names are whole numbers, ``"1.0"`` and ``"1"`` are one class, ``"1"``: a spreadsheet or a
    missing value elsewhere in a column turns integers into floats.

    Args:
        names: The names that occur.

    Returns:
        For each name that occurs the name of its class, in the order of the classes.
    """
    known = set(names)
    if all(_INTEGER.fullmatch(name) for name in known):
        return {
            name: str(int(float(name)) if "." in name else int(name)) for name in sorted(known, key=float)
        }
    if all(_NUMBER.fullmatch(name) for name in known):
        return {name: name for name in sorted(known, key=lambda name: (float(name), name))}
    return {name: name for name in sorted(known)}


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
        more = f" (and {len(positions) - 1} more rows)" if len(positions) > 1 else ""
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
