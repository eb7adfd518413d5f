"""The rows of any source in parts that a process can read, each by itself and in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfapp.data.datasets import DATASETS
from tfapp.data.image_store import ArrayImages, FileImages, ImageStore
from tfapp.data.readers import find_paths, format_of, read_source
from tfapp.data.readers.delimited import Layout, csv_layout, read_rows, tsv_layout
from tfapp.data.readers.folder import read_files, text_files
from tfapp.data.readers.json_lines import read_lines
from tfapp.data.readers.parquet import read_parquet
from tfapp.data.readers.table import Columns, Table
from tfapp.data.shards.blocks import header_of, text_blocks
from tfapp.errors import DataError

_FILES, _ROWS = 2_000, 50_000
IMAGES = 2_000
"""Images of a part."""


class Part(Protocol):
    """Some rows of one source.

    Attributes:
        source: The split that was given as this source; ``"train"`` also for what others are drawn from.
        drawn: The split that the rows belong to, where that is decided; None where a hash is to decide it.
    """

    @property
    def source(self) -> str:
        """The split that was given as this source."""

    @property
    def drawn(self) -> str | None:
        """The split that the rows belong to, or None."""

    def read(self) -> Table:
        """Reads the rows."""


@dataclass(frozen=True)
class DelimitedPart:
    """Rows of a CSV or TSV file, behind the file's header."""

    source: str
    drawn: str | None
    path: Path
    data: bytes
    columns: Columns
    layout: Layout
    skipped: int

    def read(self) -> Table:
        """Reads the rows."""
        return read_rows(self.path, self.data, self.columns, self.layout, skipped=self.skipped)


@dataclass(frozen=True)
class LinesPart:
    """Lines of a file of JSON lines."""

    source: str
    drawn: str | None
    path: Path
    data: bytes
    columns: Columns
    first: int

    def read(self) -> Table:
        """Reads the lines."""
        return read_lines(self.path, self.data, self.columns, first=self.first)


@dataclass(frozen=True)
class ParquetPart:
    """A row group of a Parquet file."""

    source: str
    drawn: str | None
    path: Path
    columns: Columns
    encoding: str
    group: int
    skipped: int

    def read(self) -> Table:
        """Reads the row group."""
        return read_parquet(
            self.path, self.columns, encoding=self.encoding, group=self.group, skipped=self.skipped
        )


@dataclass(frozen=True)
class FilesPart:
    """Files that hold one text each."""

    source: str
    drawn: str | None
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    encoding: str

    def read(self) -> Table:
        """Reads the files."""
        return read_files(self.files, self.labels, encoding=self.encoding)


@dataclass(frozen=True, eq=False)
class TablePart:
    """Rows that have been read."""

    source: str
    drawn: str | None
    table: Table

    def read(self) -> Table:
        """Returns the rows."""
        return self.table


@dataclass(frozen=True, eq=False)
class ImagePart:
    """Images that lie where they lie.

    Attributes:
        table: Their names and labels.
        images: The images.
        checked: The sha256 of each one's bytes, where all were decoded before; None where they are to be.
    """

    source: str
    drawn: str | None
    table: Table
    images: ImageStore
    checked: tuple[str, ...] | None = None

    def read(self) -> Table:
        """Returns the names and labels."""
        return self.table


def text_parts(
    source: Any, columns: Columns, *, split: str, name: str, format: str | None, encoding: str
) -> Iterator[Part]:
    """Cuts a source of texts into parts, whose splits a hash is to decide unless they are given.

    Args:
        source: What `read_source` takes.
        columns: The columns of the texts and the labels.
        split: The split that it is given as.
        name: The argument it was given as, for messages.
        format: A key of ``READERS``; by the suffix when None.
        encoding: The encoding of text files.

    Yields:
        The parts, in the order of the rows.

    Raises:
        DataError: If something cannot be used.
    """
    drawn = None if split == "train" else split
    if not isinstance(source, str | Path) or source in DATASETS:
        table = read_source(source, columns, name=name, format=format, encoding=encoding)
        for start in range(0, len(table), _ROWS):
            yield TablePart(split, drawn, table_rows(table, start, start + _ROWS))
        return
    for path in find_paths(source, name):
        chosen = format_of(path, format)
        if chosen == "folder":
            files, labels = text_files(path)
            for start in range(0, len(files), _FILES):
                some = slice(start, start + _FILES)
                yield FilesPart(split, drawn, tuple(files[some]), tuple(labels[some]), encoding)
        elif chosen == "parquet":
            yield from _row_groups(path, columns, encoding, split, drawn)
        elif chosen == "jsonl":
            for block in text_blocks(path, encoding):
                yield LinesPart(split, drawn, path, block.data, columns, block.first)
        else:
            yield from _delimited(path, columns, encoding, (split, drawn), tabs=chosen == "tsv")


def _delimited(
    path: Path, columns: Columns, encoding: str, splits: tuple[str, str | None], *, tabs: bool
) -> Iterator[Part]:
    split, drawn = splits
    lines = (block.data for block in text_blocks(path, encoding))
    layout = tsv_layout(path, lines, columns) if tabs else csv_layout(path, next(lines), columns)
    quoted = layout.delimiter if layout.quoted else ""
    header = b""
    for block in text_blocks(path, encoding, quoted=quoted):
        # The file's header is row 1 behind which the rows of every block are read.
        data, skipped = header + block.data, block.first - (2 if header else 1)
        header = header or header_of(block, quoted=quoted)
        yield DelimitedPart(split, drawn, path, data, columns, layout, skipped)


def _row_groups(path: Path, columns: Columns, encoding: str, split: str, drawn: str | None) -> Iterator[Part]:
    try:
        about = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is damaged or no Parquet file: {str(error).splitlines()[0]} Write or copy it again."
        ) from error
    skipped = 0
    for group in range(about.num_row_groups):
        rows = about.row_group(group).num_rows
        if rows:
            yield ParquetPart(split, drawn, path, columns, encoding, group, skipped)
        skipped += rows
    if not skipped:
        raise DataError(f"{path} holds no rows.")


def image_parts(
    table: Table,
    images: ImageStore,
    *,
    source: str,
    drawn: str | None,
    checked: Sequence[str] | None = None,
) -> Iterator[Part]:
    """Cuts images into parts.

    Args:
        table: Their names and labels.
        images: The images.
        source: The split that they were given as.
        drawn: The split that they belong to, or None.
        checked: The sha256 of each one's bytes where all were decoded before.

    Yields:
        The parts, in the order of the rows.
    """
    for start in range(0, len(table), IMAGES):
        stop = min(start + IMAGES, len(table))
        some = compact(images, np.arange(start, stop))
        known = None if checked is None else tuple(checked[start:stop])
        yield ImagePart(source, drawn, table_rows(table, start, stop), some, known)


def table_rows(table: Table, start: int, stop: int) -> Table:
    """Cuts rows out of a table, with the names of their own files only.

    Args:
        table: The table.
        start: Position of the first row.
        stop: Position behind the last.

    Returns:
        The rows.
    """
    some = slice(start, stop)
    used, index = np.unique(table.file_index[some], return_inverse=True)
    return Table(
        table.texts[some],
        table.labels[some],
        table.numbers[some],
        index.astype(np.int32),
        tuple(table.files[file] for file in used.tolist()),
        table.unit,
        None,
    )


def compact(images: ImageStore, rows: Any) -> ImageStore:
    """Chooses images, and forgets the files and pixels of all others.

    Args:
        images: The images.
        rows: Positions (rows,).

    Returns:
        A store of these images in this order.
    """
    if isinstance(images, ArrayImages):
        chosen = images.positions[rows]
        return ArrayImages(images.pixels[chosen], np.arange(len(chosen)), images.source)
    if not isinstance(images, FileImages):
        return images.take(rows)
    used, index = np.unique(images.file_index[rows], return_inverse=True)
    return FileImages(
        tuple(images.files[file] for file in used.tolist()),
        images.file_bytes[used],
        index.astype(np.int32),
        images.offsets[rows],
        images.lengths[rows],
        images.numbers[rows],
    )
