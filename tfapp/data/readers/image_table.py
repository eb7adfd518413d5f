"""The table that every reader of images returns: where the images lie, their labels and their groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfapp.data.image_store import FileImages, ImageStore, file_images
from tfapp.data.readers.table import Array, Table

ABSENT = -1
"""The size of an image whose file is absent."""

DAMAGED = -2
"""The size of an image whose record in its file does not have the checksum that it was written with."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images with labels as they were found, nothing read of them but their places.

    Attributes:
        table: Labels, groups, and the names by which messages speak of the images.
        images: The encoded images, one for each row; ``ABSENT`` or ``DAMAGED`` takes the place of the size
            where there is none.
        origin: What they were read from, in words.
    """

    table: Table
    images: ImageStore
    origin: str

    def __len__(self) -> int:
        return len(self.table)


def table_of_files(paths: Sequence[Path], labels: Sequence[str], origin: str) -> ImageTable:
    """Makes the table of images that are a file each.

    Args:
        paths: The files (rows,).
        labels: Their labels.
        origin: What they were read from, in words.

    Returns:
        The table.
    """
    names = tuple(os.path.abspath(path) for path in paths)
    return ImageTable(_named(names, np.array(labels, dtype=object), None), _store(names), origin)


def resolve_paths(table: Table, origin: str, *, relative_to_files: bool) -> ImageTable:
    """Finds the images that a table of paths and labels names.

    Args:
        table: Paths and labels as they were read.
        origin: What they were read from, in words.
        relative_to_files: Whether relative paths begin at the folder of the file that holds them; else at the
            current folder.

    Returns:
        The table; a row without a path keeps the place where it stands as its name.
    """
    paths = image_paths(table, relative_to_files=relative_to_files)
    names = tuple(path or table.place(row) for row, path in enumerate(paths))
    return ImageTable(_named(names, table.labels, table.groups), _store(paths), origin)


def image_paths(table: Table, *, relative_to_files: bool) -> list[str]:
    """Makes the paths in a table absolute.

    Args:
        table: Paths and labels as they were read.
        relative_to_files: Whether relative paths begin at the folder of the file that holds them; else at the
            current folder.

    Returns:
        A path for each row, empty where it has none.
    """
    folders = [
        os.path.dirname(os.path.abspath(file)) if relative_to_files else os.getcwd() for file in table.files
    ]
    paths = []
    for cell, file in zip(table.texts.tolist(), table.file_index.tolist(), strict=True):
        cell = cell.strip() if cell else ""
        paths.append(os.path.normpath(os.path.join(folders[file], os.path.expanduser(cell))) if cell else "")
    return paths


def _named(names: tuple[str, ...], labels: Array, groups: Array | None) -> Table:
    rows = len(names)
    return Table(
        np.array(names, dtype=object),
        labels,
        np.full(rows, -1, np.int64),
        np.arange(rows, dtype=np.int32),
        names,
        "file",
        groups,
    )


def _store(paths: Sequence[str]) -> FileImages:
    return file_images(paths, np.fromiter(map(_file_bytes, paths), np.int64, len(paths)))


def _file_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size if os.path.isfile(path) else ABSENT
    except (OSError, ValueError):  # a path may hold NUL
        return ABSENT
