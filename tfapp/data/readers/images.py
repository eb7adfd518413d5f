"""Readers of images: every source that ``load_image_data`` accepts becomes tables of places and labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from tfapp.data.archives import names_archive, unpack
from tfapp.data.datasets import DATASETS
from tfapp.data.readers import find_paths, read_source
from tfapp.data.readers.arrays import is_array, read_arrays
from tfapp.data.readers.image_folder import find_split_folders, read_image_folder
from tfapp.data.readers.image_table import ImageTable, image_paths, resolve_paths
from tfapp.data.readers.table import Columns
from tfapp.data.readers.tfrecord import read_tfrecords
from tfapp.errors import DataError, nearest

ImageFormat = Literal["csv", "tsv", "jsonl", "parquet", "folder", "tfrecord", "archive"]
"""What ``format`` may be for images: a reader of tables, or where the images themselves lie."""

_TFRECORD = re.compile(r"\.(tfrecords?|tfrec)($|-)")


def read_image_sources(
    given: dict[str, Any], columns: Columns, *, format: str | None
) -> dict[str, ImageTable]:
    """Finds the images of all sources that are given.

    Args:
        given: For each split its source or None; ``train`` has one, which may hold others in folders.
        columns: The columns of paths, labels and groups.
        format: One of ``ImageFormat``; by the suffix when None.

    Returns:
        A table for each split that is given.

    Raises:
        DataError: If a source cannot be used, holds no images, or a split is given twice.
    """
    if format is not None and format not in get_args(ImageFormat):
        raise DataError(f"format={format!r} is unknown; {nearest(format, get_args(ImageFormat))}")
    tables: dict[str, ImageTable] = {}
    folder = _folder(given["train"], "source", format)
    if folder is not None:
        origin = str(given["train"])
        for split, path in find_split_folders(folder).items():
            if split != "train" and given[split] is not None:
                raise DataError(
                    f"{origin} holds a folder {path.name!r}, and {split}=... gives that split too; leave one "
                    f"out, such as by passing {str(folder / 'train')!r} as the source."
                )
            tables[split] = read_image_folder(path, f"{origin}, {path.name}")
    for split, source in given.items():
        if source is not None and split not in tables:
            name = "source" if split == "train" else split
            tables[split] = _read(source, columns, name=name, format=format)
    for table in tables.values():
        if len(table) == 0:
            raise DataError(f"{table.origin} holds no images.")
        if columns.group is not None and table.table.groups is None:
            raise DataError(
                f"{table.origin} has no column {columns.group!r} of groups: folders, arrays and lists have "
                "none. Give a table of path, label and group, or leave group out."
            )
    return {split: tables[split] for split in given if split in tables}


def find_named_files(source: str, columns: Columns, *, name: str, format: str | None) -> list[str]:
    """Finds the image files that tables of paths name.

    Args:
        source: A path or pattern.
        columns: The columns of paths, labels and groups.
        name: The argument it was given as, for messages.
        format: One of ``ImageFormat``; by the suffix when None.

    Returns:
        Absolute paths, each once, whether there is such a file or not; none where the images lie at the
        source itself, as in folders, archives and TFRecord shards.

    Raises:
        DataError: If a table cannot be read.
    """
    path = Path(source).expanduser()
    holds_them = path.is_dir() or names_archive(path) if format is None else format in ("folder", "archive")
    if holds_them or _is_shards(source, format):
        return []
    table = read_source(source, columns, name=name, format=format, encoding="utf-8")
    return sorted({path for path in image_paths(table, relative_to_files=True) if path})


def _read(source: Any, columns: Columns, *, name: str, format: str | None) -> ImageTable:
    folder = _folder(source, name, format)
    if folder is not None:
        return read_image_folder(folder, str(source))
    if isinstance(source, str | Path):
        return _read_files(source, columns, name, format)
    if is_array(source):
        raise DataError(f"{name} is an array of images without labels; give (images, labels).")
    if isinstance(source, tuple) and len(source) == 2 and is_array(source[0]):
        return read_arrays(source[0], source[1], name=name)
    known = isinstance(source, pd.DataFrame | list | tuple) and not hasattr(source, "as_numpy_iterator")
    if not known:
        raise DataError(
            f"{name} is a {type(source).__name__}; give a folder of class folders, an archive of one, a "
            "file or DataFrame of paths and labels, TFRecord shards, (images, labels), (paths, labels) or a "
            "packaged data set's name."
        )
    table = read_source(source, columns, name=name, format=None, encoding="utf-8")
    return resolve_paths(table, name, relative_to_files=False)


def _read_files(source: str | Path, columns: Columns, name: str, format: str | None) -> ImageTable:
    """Reads TFRecord shards, files of paths and labels, and packaged data sets."""
    if _is_shards(str(source), format):
        return read_tfrecords(find_paths(source, name), columns, origin=str(source))
    table = read_source(source, columns, name=name, format=format, encoding="utf-8")
    return resolve_paths(table, str(source), relative_to_files=source not in DATASETS)


def _is_shards(source: str, format: str | None) -> bool:
    """Tells TFRecord shards by format or name; ``train.tfrecord-00000-of-00008`` is one too."""
    name = source.rsplit("/", 1)[-1].lower()
    return format == "tfrecord" or (format is None and bool(_TFRECORD.search(name)))


def _folder(source: Any, name: str, format: str | None) -> Path | None:
    """Returns the folder that a source is, unpacking archives; None for other sources, and packaged ones."""
    named = isinstance(source, str | Path) and source not in DATASETS
    if not named or format not in (None, "folder", "archive"):
        return None
    path = Path(source).expanduser()
    if format == "archive" or (format is None and names_archive(path)):
        return unpack(_archive(source, name))
    if path.is_dir() and str(source):
        return path
    if format == "folder":
        raise DataError(f"{name}={str(source)!r} is no folder, but format='folder'.")
    return None


def _archive(source: str | Path, name: str) -> Path:
    paths = find_paths(source, name)
    if len(paths) > 1:
        raise DataError(
            f"{name}={str(source)!r} matches {len(paths)} archives; give one of them, or unpack them into "
            "one folder and pass that."
        )
    if paths[0].is_dir():
        raise DataError(f"{paths[0]} is a folder, but format='archive'; leave format out.")
    return paths[0]
