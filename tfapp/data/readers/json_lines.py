"""JSON lines: one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.data.readers.decoding import read_utf8, refuse_blank
from tfapp.data.readers.table import Columns, Table, check_columns, make_table
from tfapp.errors import DataError


def read_jsonl(path: Path, columns: Columns, *, encoding: str) -> Table:
    """Reads texts and labels from a file that holds one JSON object a line.

    Args:
        path: The file.
        columns: The keys of the texts and the labels.
        encoding: The file's encoding.

    Returns:
        The table; the first line is line 1.

    Raises:
        DataError: If the file, a line or a key cannot be used.
    """
    data = read_utf8(path, encoding)
    refuse_blank(path, data)
    return read_lines(path, data, columns)


def read_lines(path: Path, data: bytes, columns: Columns, *, first: int = 1) -> Table:
    """Reads the lines of a file, or some of them.

    Args:
        path: The file.
        data: UTF-8, whole lines.
        columns: The keys of the texts and the labels.
        first: Number of the first line in the file.

    Returns:
        The table.

    Raises:
        DataError: If a line or a key cannot be used.
    """
    decode = json.JSONDecoder().decode
    texts: list[str | None] = []
    labels: list[Any] = []
    groups: list[Any] = []
    numbers: list[int] = []
    for number, line in enumerate(data.decode("utf-8").split("\n"), first):
        if not line or line.isspace():
            continue
        try:
            row = decode(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(_malformed(path, number, line, error)) from error
        if not isinstance(row, dict):
            example = ", ".join(f'"{name}": "..."' for name in columns.names)
            raise DataError(
                f"{path}, line {number} is {row!r:.60}, not an object; write one object a line, such as "
                f"{{{example}}}."
            )
        if any(name not in row for name in columns.names):
            check_columns(f"{path}, line {number}", list(row), columns, noun="key")
        value = row[columns.content]
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{path}, line {number}: {columns.content!r} is {value!r:.60}, not a string; "
                f"quote it, or name another key with {columns.keyword}=..."
            )
        texts.append(value)
        labels.append(row[columns.label] if columns.label else None)
        groups.append(None if columns.group is None else row[columns.group])
        numbers.append(number)
    column = np.empty(len(labels), dtype=object)
    column[:] = labels
    return make_table(
        np.array(texts, dtype=object),
        column,
        file=str(path),
        unit="line",
        numbers=np.array(numbers, np.int64),
        groups=None if columns.group is None else groups,
    )


def _malformed(path: Path, number: int, line: str, error: json.JSONDecodeError | RecursionError) -> str:
    if number == 1 and line.lstrip().startswith("["):
        return (
            f"{path} holds one JSON array; write one object a line instead, as "
            "pandas.DataFrame.to_json(orient='records', lines=True) does."
        )
    fault = (
        f"{error.msg} at column {error.colno}"
        if isinstance(error, json.JSONDecodeError)
        else "it nests too deep"
    )
    return (
        f"{path}, line {number} is not valid JSON: {fault}: {line[:80]!r}. "
        "Repair the line; every line must be one whole object."
    )
