"""Data that is in memory already: pairs, DataFrames and tf.data datasets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfapp.data.readers.table import Array, Columns, Table, check_columns, counted, make_table
from tfapp.errors import DataError

_TEXTS = Columns("text", "label")


def read_frame(frame: pd.DataFrame, columns: Columns, *, name: str) -> Table:
    """Reads the columns of texts and labels from a DataFrame.

    Args:
        frame: The frame; its own index is not used.
        columns: The columns of the texts and the labels.
        name: What to call the frame in messages.

    Returns:
        The table; the first row has index 0.

    Raises:
        DataError: If a column is missing, holds no strings, or a label is missing.
    """
    header = [str(column) for column in frame.columns]
    check_columns(name, header, columns)
    texts, labels, *groups = (frame.iloc[:, header.index(column)] for column in columns.names)
    missing = labels.isna().to_numpy()
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise DataError(
            f"{name}, index {first} has a missing label (NaN or None in {columns.label!r}; "
            f"{counted(int(missing.sum()), 'such row')} in all). Label them, or drop them with "
            f"frame.dropna(subset=[{columns.label!r}])."
        )
    if isinstance(labels.dtype, pd.CategoricalDtype):
        labels = labels.astype(labels.dtype.categories.dtype)
    plain = isinstance(labels.dtype, np.dtype)
    return make_table(
        _texts(texts.astype(object).where(texts.notna(), None).to_numpy(dtype=object), name, columns),
        labels.to_numpy() if plain else labels.to_numpy(dtype=object),
        file=name,
        unit="index",
        first=0,
        groups=groups[0] if groups else None,
    )


def read_pair(texts: Any, labels: Any, *, name: str, columns: Columns = _TEXTS) -> Table:
    """Reads texts and labels from two sequences of one length.

    Args:
        texts: Sequence (rows,) of ``str``.
        labels: Sequence (rows,) of labels.
        name: What to call them in messages.
        columns: Says whether texts or the paths of images are meant.

    Returns:
        The table; the first row has index 0.

    Raises:
        DataError: If the lengths differ, or a text is no string.
    """
    if len(texts) != len(labels):
        raise DataError(
            f"{name} has {len(texts)} {columns.noun}s and {len(labels)} labels; "
            f"give one label for every {columns.noun}."
        )
    if isinstance(labels, np.ndarray | pd.Series | pd.Index):
        values = np.asarray(labels)
        if values.ndim != 1:
            raise DataError(
                f"{name} has labels of shape {values.shape}; give one label a row, such as labels.argmax(-1) "
                "for one-hot rows."
            )
    else:
        values = _objects(labels)
    return make_table(_texts(_objects(texts), name, columns), values, file=name, unit="index", first=0)


def read_pairs(pairs: Sequence[Any], *, name: str, columns: Columns = _TEXTS) -> Table:
    """Reads a list of ``(text, label)`` pairs.

    Args:
        pairs: The pairs.
        name: What to call them in messages.
        columns: Says whether texts or the paths of images are meant.

    Returns:
        The table; the first pair has index 0.

    Raises:
        DataError: If an item is no pair, or a text is no string.
    """
    for index, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"{name}, index {index} is {pair!r:.60}, not a ({columns.noun}, label) pair; give a "
                f"list of pairs, or a tuple ({columns.noun}s, labels)."
            )
    return read_pair([pair[0] for pair in pairs], [pair[1] for pair in pairs], name=name, columns=columns)


def read_dataset(dataset: Any, columns: Columns, *, name: str) -> Table:
    """Reads a finite ``tf.data.Dataset``, batched or not.

    Args:
        dataset: Yields ``(text, label)`` or a dict with the keys ``text`` and ``label``.
        columns: The keys of the texts and the labels.
        name: What to call the dataset in messages.

    Returns:
        The table; the first element has index 0.

    Raises:
        DataError: If the dataset is infinite, or its elements are something else.
    """
    if int(dataset.cardinality()) == -1:
        raise DataError(
            f"{name} is an infinite dataset; take a part of it with .take(n), or leave out .repeat()."
        )
    texts: list[Any] = []
    labels: list[Any] = []
    for index, element in enumerate(dataset.as_numpy_iterator()):
        if isinstance(element, dict):
            check_columns(f"{name}, element {index}", list(element), columns, noun="key")
            element = (element[columns.content], element[columns.label])
        if not isinstance(element, tuple) or len(element) != 2:
            raise DataError(
                f"{name}, element {index} is no (text, label) pair; map the dataset to such pairs."
            )
        some_texts, some_labels = np.atleast_1d(element[0]), np.atleast_1d(element[1])
        if some_texts.shape != some_labels.shape or some_texts.ndim != 1:
            raise DataError(
                f"{name}, element {index} has texts of shape {np.shape(element[0])} and labels of shape "
                f"{np.shape(element[1])}; give one text and one label an element, or batches of them."
            )
        texts.extend(some_texts.tolist())
        labels.extend(some_labels.tolist())
    return read_pair(texts, labels, name=name)


def _objects(values: Any) -> Array:
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column


def _texts(values: Array, name: str, columns: Columns) -> Array:
    for index, value in enumerate(values):
        if isinstance(value, str) or value is None:
            continue
        if isinstance(value, bytes):
            try:
                values[index] = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{name}, index {index} is not UTF-8 (byte offset {error.start}); decode it first."
                ) from error
        elif isinstance(value, os.PathLike) and columns.keyword == "image":
            values[index] = os.fspath(value)
        elif isinstance(value, float) and np.isnan(value):
            values[index] = None
        else:
            raise DataError(
                f"{name}, index {index}: the {columns.noun} is {value!r:.60} ({type(value).__name__}), not a "
                f"string; name the column of the {columns.noun}s with {columns.keyword}=..., or make "
                "strings of them."
            )
    return values
