"""A folder with one sub-folder of text files per class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from tfapp.data.readers.decoding import check_encoding, read_utf8
from tfapp.data.readers.table import Columns, Table, quoted
from tfapp.errors import DataError

_SHARD_SUFFIXES = {".csv", ".tsv", ".jsonl", ".json", ".parquet"}
_SUFFIXES = ("", ".txt", ".text")
_TEXTS = ".txt files"
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_HIDDEN = (".", "__MACOSX")  # the second is what macOS adds to archives


def read_folder(path: Path, columns: Columns, *, encoding: str) -> Table:
    """Reads a folder whose sub-folders are the classes and hold one text a file.

    Files that end in ``.txt``, ``.text`` or have no suffix are read; hidden ones are left out.

    Args:
        path: The folder.
        columns: Not used: files have no columns, and the sub-folder's name is the label.
        encoding: The files' encoding.

    Returns:
        The table; every file is one row.

    Raises:
        DataError: If there are no class folders, or one of them holds no text files.
    """
    return read_files(*text_files(path), encoding=encoding)


def text_files(path: Path) -> tuple[list[Path], list[str]]:
    """Lists the text files of a folder of class folders.

    Args:
        path: The folder.

    Returns:
        The files and their labels.

    Raises:
        DataError: If there are no class folders, or one of them holds no text files.
    """
    entries = visible(path)
    class_folders = [entry for entry in entries if entry.is_dir()]
    if not class_folders:
        suffixes = sorted({entry.suffix for entry in entries} & _SHARD_SUFFIXES)
        cure = f" To read its files as shards, pass {str(path / '*') + suffixes[0]!r}." if suffixes else ""
        raise DataError(f"{path} has no sub-folders; a folder of texts needs one sub-folder per class.{cure}")
    files: list[Path] = []
    labels: list[str] = []
    for folder in class_folders:
        found = class_files(folder, _SUFFIXES, _TEXTS)[0]
        files += found
        labels += [folder.name] * len(found)
    return files, labels


def read_files(files: Sequence[Path], labels: Sequence[str], *, encoding: str) -> Table:
    """Reads files that hold one text each.

    Args:
        files: The files.
        labels: Their labels.
        encoding: Their encoding.

    Returns:
        The table; every file is one row.

    Raises:
        DataError: If a file cannot be read.
    """
    check_encoding(encoding)
    texts = [read_utf8(file, encoding).decode("utf-8").strip() for file in files]
    return Table(
        np.array(texts, dtype=object),
        np.array(labels, dtype=object),
        np.full(len(texts), -1, np.int64),
        np.arange(len(texts), dtype=np.int32),
        tuple(str(file) for file in files),
        "file",
    )


def visible(folder: Path) -> list[Path]:
    """Lists a folder without hidden entries.

    Args:
        folder: The folder.

    Returns:
        Its entries, ordered by name.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def class_files(folder: Path, suffixes: Collection[str], kind: str) -> tuple[list[Path], list[Path]]:
    """Lists the files of a class folder.

    Args:
        folder: The folder.
        suffixes: Suffixes of the files that are wanted, in lower case.
        kind: What these files are called in messages.

    Returns:
        The files that are wanted, and the others.

    Raises:
        DataError: If the folder holds folders, or none of the files that are wanted.
    """
    entries = visible(folder)
    nested = [entry.name for entry in entries if entry.is_dir()]
    if nested:
        raise DataError(
            f"the class folder {folder} holds folders ({quoted(nested, 5)}), not only {kind}. "
            f"If {folder.name!r} is a split and not a class, pass it by itself, as {str(folder)!r}; "
            "else move the files up."
        )
    wanted = [entry for entry in entries if entry.suffix.lower() in suffixes]
    others = [entry for entry in entries if entry.suffix.lower() not in suffixes]
    if wanted:
        return wanted, others
    if kind == _TEXTS and {entry.suffix.lower() for entry in others} & _IMAGE_SUFFIXES:
        raise DataError(
            f"the class folder {folder} holds images; load_image_data reads them (in a workflow: "
            '`kind = "image"` in [data]).'
        )
    found = f"only {quoted([entry.name for entry in others], 3)}" if others else "no files at all"
    raise DataError(f"the class folder {folder} holds no {kind} ({found}); add some or remove the folder.")
