"""What is to be cut into shards: its parts, its size, and by what it is told from another source."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.data.datasets import DATASETS
from tfapp.data.image_store import FileImages
from tfapp.data.readers import find_paths
from tfapp.data.readers.image_table import ImageTable
from tfapp.data.readers.images import read_image_sources
from tfapp.data.readers.table import Columns, Table
from tfapp.data.report import DataReport
from tfapp.data.shards.parts import Part, image_parts, text_parts
from tfapp.data.split_data import SPLITS, SplitData
from tfapp.errors import DataError, nearest

EXACT_BYTES = 1 << 28
"""Texts up to this many bytes are read whole, so that their splits are stratified."""
EXACT_IMAGES = 20_000
"""The same for images."""
MODES = ("auto", "exact", "hash")


@dataclass
class Source:
    """Rows to be cut into shards.

    Attributes:
        given: The source of each split that is given, ``"train"`` among them.
        kind: ``"text"`` or ``"image"``.
        columns: The columns of content, labels and groups.
        mode: ``"exact"`` where all rows are read and split as `load_text_data` and `load_image_data` do,
            ``"hash"`` where each row's content decides by itself.
        options: Further arguments of these functions.
        listed: The images of each source, where a hash decides.
        data: The rows, once they were read whole.
    """

    given: dict[str, Any]
    kind: str
    columns: Columns
    mode: str
    options: dict[str, Any]
    listed: dict[str, ImageTable] = field(default_factory=dict)
    data: SplitData[Any] | None = None

    @property
    def words(self) -> dict[str, str]:
        """What was given, in words, by split."""
        return {
            split: str(source) if isinstance(source, str | Path) else f"{type(source).__name__} in memory"
            for split, source in self.given.items()
        }

    def whole(self) -> SplitData[Any]:
        """Reads, cleans and splits all rows at once.

        Returns:
            `TextData` or `ImageData`.

        Raises:
            DataError: If something cannot be used.
        """
        if self.data is None:
            columns, held_out = self.columns, {"validation": None, "test": None, **self.given}
            source = held_out.pop("train")
            if self.kind == "text":
                from tfapp.data.text import load_text_data

                options = {name: self.options[name] for name in _TEXT_OPTIONS}
                self.data = load_text_data(
                    source, text=columns.content, label=columns.label, **held_out, **options
                )
            else:
                from tfapp.data.image import load_image_data

                options = {name: self.options[name] for name in _IMAGE_OPTIONS}
                self.data = load_image_data(
                    source,
                    image=columns.content,
                    label=columns.label,
                    group=columns.group,
                    **held_out,
                    **options,
                )
        return self.data

    @property
    def report(self) -> DataReport | None:
        """The report of rows that were read whole."""
        return None if self.mode == "hash" else self.whole().report

    @property
    def drawn(self) -> dict[str, float]:
        """The share of each split that is to be drawn from the training source."""
        given = self.listed or self.given
        names = ("test", "validation")
        return {split: self.options[f"{split}_fraction"] for split in names if split not in given}

    @property
    def bytes(self) -> int:
        """About how many bytes the content has."""
        if self.listed:
            return sum(table.images.total_bytes for table in self.listed.values())
        if all(_on_disk(source) for source in self.given.values()) and self.kind == "text":
            return sum(size for source in self.given.values() for _, size, _ in _files(source))
        features = [split.features for split in self.whole().splits.values()]
        if self.kind == "image":
            return sum(int(images.total_bytes) for images in features)
        return sum(len(text.encode()) for texts in features for text in texts)

    def fingerprint(self) -> str:
        """Checksum of what tells the source from others: names, sizes and times of files, or all content."""
        if not all(_on_disk(source) for source in self.given.values()):
            return self.whole().fingerprint
        if self.kind == "image" and self.mode == "exact":
            return self.whole().fingerprint  # a table's files do not tell of the images that it names
        digest = hashlib.sha256()
        for split, source in self.given.items():
            digest.update(f"{split}\0{_files(source)}\0".encode())
        for split, table in self.listed.items():
            images = table.images
            digest.update(f"{split}\0{table.table.labels.tolist()}\0".encode())
            if isinstance(images, FileImages):
                digest.update("\0".join(images.files).encode() + images.file_bytes.tobytes())
                digest.update(str([_changed(Path(file)) for file in images.files]).encode())
        return digest.hexdigest()

    def parts(self) -> Iterator[Part]:
        """Cuts the rows into parts.

        Yields:
            The parts, always the same ones.

        Raises:
            DataError: If something cannot be used.
        """
        if self.mode == "exact":
            yield from _exact_parts(self.whole())
            return
        for split, table in self.listed.items():
            drawn = None if split == "train" else split
            yield from image_parts(table.table, table.images, source=split, drawn=drawn)
        if self.kind == "text":
            for split, source in self.given.items():
                yield from text_parts(
                    source,
                    self.columns,
                    split=split,
                    name="source" if split == "train" else split,
                    format=self.options["format"],
                    encoding=self.options["encoding"],
                )


_TEXT_OPTIONS = ("format", "encoding", "validation_fraction", "test_fraction", "seed")
_IMAGE_OPTIONS = (
    *("format", "validation_fraction", "test_fraction", "seed"),
    *("unreadable", "near_duplicates", "max_pixels"),
)


def open_source(given: Mapping[str, Any], columns: Columns, *, mode: str, options: dict[str, Any]) -> Source:
    """Looks at a source, and decides how its splits are drawn.

    Args:
        given: The source of each split, None where it is to be drawn.
        columns: The columns of content, labels and groups.
        mode: ``"exact"``, ``"hash"``, or ``"auto"`` for what the size decides.
        options: Further arguments of `load_text_data` and `load_image_data`.

    Returns:
        The source.

    Raises:
        DataError: If it cannot be used.
    """
    if mode not in MODES:
        raise DataError(f"split={mode!r} is unknown; {nearest(str(mode), MODES)}")
    kind = columns.keyword
    present = {split: source for split, source in given.items() if source is not None}
    listed = {}
    if kind == "image" and mode != "exact" and all(_on_disk(source) for source in present.values()):
        listed = read_image_sources(
            {split: given.get(split) for split in SPLITS}, columns, format=options["format"]
        )
    if mode == "auto":
        mode = "hash" if _is_large(present, listed, kind) and columns.group is None else "exact"
    if mode == "hash":
        _check_hash(present, listed, columns)
    return Source(present, kind, columns, mode, options, listed if mode == "hash" else {})


def _is_large(given: Mapping[str, Any], listed: Mapping[str, ImageTable], kind: str) -> bool:
    if kind == "image":
        return sum(map(len, listed.values())) > EXACT_IMAGES
    if not all(_on_disk(source) for source in given.values()):
        return False
    return sum(size for source in given.values() for _, size, _ in _files(source)) > EXACT_BYTES


def _check_hash(given: Mapping[str, Any], listed: Mapping[str, ImageTable], columns: Columns) -> None:
    if not all(_on_disk(source) for source in given.values()):
        raise DataError("split='hash' reads files and folders; rows in memory take split='exact'.")
    if columns.group is not None:
        raise DataError(
            "split='hash' looks at each row by itself and cannot keep groups together: use split='exact', "
            "or leave group out."
        )


def _on_disk(source: Any) -> bool:
    return isinstance(source, str | Path) and str(source) not in DATASETS


def _files(source: str | Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of each file of a source."""
    found = []
    for path in find_paths(source, "source"):
        inner = path.rglob("*") if path.is_dir() else [path]
        for file in sorted(inner):
            with contextlib.suppress(OSError):  # the reader says what is wrong with it
                about = os.stat(file)
                if stat.S_ISREG(about.st_mode):
                    found.append((str(file), about.st_size, about.st_mtime_ns))
    return found


def _exact_parts(data: SplitData[Any]) -> Iterator[Part]:
    for name, split in data.splits.items():
        rows = len(split)
        labels = np.array(data.classes, dtype=object)[split.labels]
        if data.kind == "image":
            names = tuple(split.images.name(row) for row in range(rows))
            table = _table(np.array(names, dtype=object), labels, names)
            yield from image_parts(table, split.images, source="train", drawn=name, checked=split.digests)
        else:
            yield from _text_tables(name, np.array(split.texts, dtype=object), labels)


def _text_tables(name: str, texts: Any, labels: Any) -> Iterator[Part]:
    from tfapp.data.shards.parts import TablePart

    for start in range(0, len(texts), 50_000):
        some = slice(start, start + 50_000)
        files = np.zeros(len(texts[some]), np.int32)
        numbers = np.arange(start, start + len(files))
        yield TablePart("train", name, Table(texts[some], labels[some], numbers, files, (name,)))


def _table(names: Any, labels: Any, files: tuple[str, ...]) -> Table:
    rows = len(files)
    return Table(names, labels, np.full(rows, -1, np.int64), np.arange(rows, dtype=np.int32), files, "file")


def _changed(path: Path) -> int:
    """When a file was changed, in nanoseconds; 0 where it has gone, which its reader tells."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
