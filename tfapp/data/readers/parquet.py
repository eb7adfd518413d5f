"""Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfapp.data.readers.decoding import check_encoding
from tfapp.data.readers.table import Columns, Table, check_columns, make_table
from tfapp.errors import DataError


def read_parquet(
    path: Path, columns: Columns, *, encoding: str, group: int | None = None, skipped: int = 0
) -> Table:
    """Reads the columns of texts and labels from a Parquet file.

    Args:
        path: The file.
        columns: The columns of the texts (strings, or bytes in ``encoding``) and of the labels (strings,
            integers, booleans or floats).
        encoding: The encoding of texts that are stored as bytes; ``"auto"`` means UTF-8.
        group: The one row group to read, from 0; all when None.
        skipped: How many rows stand before it.

    Returns:
        The table; the first row of the file is row 1.

    Raises:
        DataError: If the file is damaged, or a column cannot be used.
    """
    name = "utf-8" if encoding == "auto" else check_encoding(encoding)
    try:
        with pq.ParquetFile(path) as file:
            check_columns(str(path), file.schema_arrow.names, columns)
            names = columns.names
            table = file.read(columns=names) if group is None else file.read_row_group(group, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged or no Parquet file: {str(error).splitlines()[0]} Write or copy it again."
        ) from error
    if table.num_rows == 0:
        raise DataError(f"{path} holds no rows.")
    return make_table(
        _texts(path, columns, table.column(columns.content), name, skipped),
        _labels(path, columns.label, table.column(columns.label))
        if columns.label
        else np.full(table.num_rows, None),
        file=str(path),
        unit="row",
        first=1 + skipped,
        groups=None if columns.group is None else table.column(columns.group).to_pylist(),
    )


def _plain(column: Any) -> Any:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _texts(path: Path, columns: Columns, column: Any, encoding: str, skipped: int) -> np.ndarray[Any, Any]:
    column = _plain(column)
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _decoded(path, columns.content, column, encoding, skipped)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise DataError(
            f"{path}: the column {columns.content!r} holds {kind}, not {columns.noun}s; "
            f"name another with {columns.keyword}=..."
        )
    return np.asarray(column, dtype=object)


def _decoded(path: Path, name: str, column: Any, encoding: str, skipped: int) -> np.ndarray[Any, Any]:
    texts = np.empty(len(column), dtype=object)
    for position, value in enumerate(column.to_pylist()):
        try:
            texts[position] = None if value is None else value.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, row {skipped + position + 1}: the bytes in {name!r} are not {encoding} (byte "
                f"offset {error.start}); pass their encoding=..."
            ) from error
    return texts


def _labels(path: Path, name: str, column: Any) -> np.ndarray[Any, Any]:
    column = _plain(column)
    if pa.types.is_nested(column.type):
        raise DataError(f"{path}: the column {name!r} holds {column.type}; a label must be one value a row.")
    plain_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if plain_number and column.null_count == 0:
        return np.asarray(column)
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values
