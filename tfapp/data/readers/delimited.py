"""CSV and TSV files, read by Arrow, with ragged rows found and named."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tfapp.data.readers.decoding import read_utf8, refuse_blank
from tfapp.data.readers.table import Columns, Table, check_columns, counted, make_table
from tfapp.errors import DataError

_BLOCK_BYTES = 1 << 26
_HINT = " The first row of the file must name the columns."


def read_csv(path: Path, columns: Columns, *, encoding: str) -> Table:
    """Reads the columns of texts and labels from a CSV file, every cell as it stands there.

    The first row names the columns. Cells may be quoted and then hold delimiters and line breaks. A
    semicolon, tab or bar is taken as the delimiter when only it makes both columns appear.

    Args:
        path: The file.
        columns: The columns of the texts and the labels.
        encoding: The file's encoding.

    Returns:
        The table; the header is row 1.

    Raises:
        DataError: If the file, a column or a row cannot be used.
    """
    data, skipped = _content(path, encoding)
    return read_rows(path, data, columns, csv_layout(path, data, columns), skipped=skipped)


def read_tsv(path: Path, columns: Columns, *, encoding: str) -> Table:
    """Reads the columns of texts and labels from a file of tab-separated values.

    A quotation mark at the beginning of a cell quotes it, unless that makes no sense for the whole file:
    many public sets write raw quotation marks.

    Args:
        path: The file.
        columns: The columns of the texts and the labels.
        encoding: The file's encoding.

    Returns:
        The table; the header is row 1.

    Raises:
        DataError: If the file, a column or a row cannot be used.
    """
    data, skipped = _content(path, encoding)
    return read_rows(path, data, columns, tsv_layout(path, data, columns), skipped=skipped)


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are written.

    Attributes:
        header: Names of the columns.
        delimiter: What stands between cells.
        quoted: Whether a quotation mark at the beginning of a cell quotes it.
    """

    header: tuple[str, ...]
    delimiter: str
    quoted: bool


def csv_layout(path: Path, data: bytes, columns: Columns) -> Layout:
    """Finds how a CSV file is written.

    Args:
        path: The file.
        data: Its first rows.
        columns: The columns that it must have.

    Returns:
        The layout.

    Raises:
        DataError: If a column is missing.
    """
    delimiter, header = ",", _header(data, ",")
    for other in (";", "\t", "|"):
        if set(columns.names) <= set(header):
            break
        found = _header(data, other)
        if set(columns.names) <= set(found):
            delimiter, header = other, found
    check_columns(str(path), header, columns, hint=_HINT)
    return Layout(tuple(header), delimiter, quoted=True)


def tsv_layout(path: Path, data: bytes, columns: Columns) -> Layout:
    """Finds how a file of tab-separated values is written.

    Args:
        path: The file.
        data: Its rows, or the first of them.
        columns: The columns that it must have.

    Returns:
        The layout.

    Raises:
        DataError: If a column is missing.
    """
    header = _header(data, "\t")
    check_columns(str(path), header, columns, hint=_HINT)
    plain = Layout(tuple(header), "\t", quoted=False)
    table, ragged = _parse(path, data, columns, plain)
    return replace(plain, quoted=True) if ragged or _all_quotes_closed(table) else plain


def read_rows(path: Path, data: bytes, columns: Columns, layout: Layout, *, skipped: int) -> Table:
    """Reads the rows of a file, or some of them behind the file's header.

    Args:
        path: The file.
        data: UTF-8, a header and rows.
        columns: The columns of the texts and the labels.
        layout: How the rows are written.
        skipped: How many rows stand in the file before these, not counting the header.

    Returns:
        The table.

    Raises:
        DataError: If a row cannot be used.
    """
    table, ragged = _parse(path, data, columns, layout)
    _refuse_ragged(path, ragged, skipped)
    return _table(path, table, columns, skipped)


def _content(path: Path, encoding: str) -> tuple[bytes, int]:
    """Returns the file's bytes without blank lines around them, and the number of lines cut before."""
    data = read_utf8(path, encoding)
    refuse_blank(path, data)
    content = data.lstrip(b"\r\n")
    skipped = data.count(b"\n", 0, len(data) - len(content))
    return content.rstrip(b"\r\n") + b"\n", skipped


def _header(data: bytes, delimiter: str) -> list[str]:
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    try:
        return next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error:
        return []


def _parse(path: Path, data: bytes, columns: Columns, layout: Layout) -> tuple[Any, list[Any]]:
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            # One thread: with several, Arrow does not know the number of an invalid row.
            read_options=pacsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=columns.names,
                column_types={name: pa.string() for name in layout.header},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} cannot be read as delimited text: {error}. Look for a quote that never closes."
        ) from error
    return table, ragged


def _all_quotes_closed(table: Any) -> bool:
    opened = False
    for column in table.columns:
        starts = pc.starts_with(column, '"')
        opened = opened or bool(pc.any(starts).as_py())
        if pc.any(pc.and_not(starts, pc.ends_with(column, '"'))).as_py():
            return False
    return opened


def _refuse_ragged(path: Path, ragged: list[Any], skipped: int) -> None:
    if not ragged:
        return
    row = ragged[0]
    more = f" ({counted(len(ragged), 'such row')} in all)" if len(ragged) > 1 else ""
    unclosed = row.text.count('"') % 2 == 1
    cure = (
        "A quotation mark in it is never closed: close it, or double it."
        if unclosed
        else "Quote cells that hold the delimiter or a line break, and give every row all cells."
    )
    raise DataError(
        f"{path}, row {row.number + skipped} has {counted(row.actual_columns, 'cell')} where the header has "
        f"{row.expected_columns}{more}: {row.text[:80]!r}. {cure}"
    )


def _table(path: Path, table: Any, columns: Columns, skipped: int) -> Table:
    if table.num_rows == 0:
        raise DataError(f"{path} holds no rows below its header.")
    cells = {name: np.asarray(table.column(name), dtype=object) for name in columns.names}
    texts = cells[columns.content]
    return make_table(
        texts,
        cells.get(columns.label, np.full(len(texts), None)),
        file=str(path),
        unit="row",
        first=2 + skipped,
        groups=None if columns.group is None else cells[columns.group],
    )
