"""Readers: files, folders and objects in memory become one table of texts or images and labels."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tfapp.data.readers.delimited import read_csv, read_tsv
from tfapp.data.readers.folder import read_folder
from tfapp.data.readers.in_memory import read_dataset, read_frame, read_pair, read_pairs
from tfapp.data.readers.json_lines import read_jsonl
from tfapp.data.readers.parquet import read_parquet
from tfapp.data.readers.table import Columns, Table, concatenate
from tfapp.errors import DataError, did_you_mean, nearest

READERS: dict[str, Callable[..., Table]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "folder": read_folder,
}
"""The formats that files can have; a file's suffix chooses among them unless ``format`` is given."""

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
} | {
    ".parquet": "parquet",
    ".pq": "parquet",
}


def read_source(source: Any, columns: Columns, *, name: str, format: str | None, encoding: str) -> Table:
    """Reads texts and labels from anything that ``load_text_data`` accepts.

    Args:
        source: Path, glob pattern, folder, packaged name, pair, list of pairs, DataFrame or dataset.
        columns: The columns or keys of the texts and the labels.
        name: The argument it was given as, for messages: ``"source"``, ``"validation"`` or ``"test"``.
        format: A key of ``READERS``; by the suffix when None.
        encoding: The encoding of text files.

    Returns:
        The rows as they are, nothing cleaned.

    Raises:
        DataError: If it cannot be read, or holds no rows.
    """
    if format is not None and format not in READERS:
        raise DataError(f"format={format!r} is unknown; {nearest(format, READERS)}")
    if isinstance(source, str | Path):
        table = _read_path(source, name, columns, format, encoding)
    else:
        table = _read_memory(source, name, columns)
    if len(table) == 0:
        raise DataError(f"{table.files[0] if table.files else name} holds no rows.")
    return table


def _read_memory(source: Any, name: str, columns: Columns) -> Table:
    if isinstance(source, pd.DataFrame):
        return read_frame(source, columns, name=name)
    if hasattr(source, "as_numpy_iterator"):
        return read_dataset(source, columns, name=name)
    if isinstance(source, tuple) and len(source) == 2:
        if isinstance(source[0], str) or not all(hasattr(part, "__len__") for part in source):
            raise DataError(f"{name} is one (text, label) pair; give a list of pairs, or (texts, labels).")
        return read_pair(source[0], source[1], name=name, columns=columns)
    if isinstance(source, list | tuple):
        return read_pairs(source, name=name, columns=columns)
    raise DataError(
        f"{name} is a {type(source).__name__}; give a path, a pattern, a folder, a packaged data set's name, "
        "(texts, labels), a list of (text, label) pairs, a DataFrame or a tf.data.Dataset."
    )


def _read_path(source: str | Path, name: str, columns: Columns, format: str | None, encoding: str) -> Table:
    if isinstance(source, str):
        packaged = _read_packaged(source, columns, name)
        if packaged is not None:
            return packaged
    tables = [
        READERS[format_of(path, format)](path, columns, encoding=encoding)
        for path in find_paths(source, name)
    ]
    if len({table.unit for table in tables}) > 1:
        raise DataError(f"{name}={str(source)!r} matches files of several formats; match one format.")
    return concatenate(tables)


def format_of(path: Path, format: str | None) -> str:
    """Tells the format of a file or folder of texts.

    Args:
        path: The file or folder.
        format: A key of ``READERS`` that the user named; by the suffix when None.

    Returns:
        A key of ``READERS``.

    Raises:
        DataError: If the suffix names none, or a folder is no folder.
    """
    chosen = format or ("folder" if path.is_dir() else _SUFFIXES.get(path.suffix.lower()))
    if chosen is None:
        raise DataError(
            f"{path} has the suffix {path.suffix!r}, which names no format; "
            f"pass format=..., one of {', '.join(READERS)}."
        )
    if path.is_dir() != (chosen == "folder"):
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'no folder'}, but format={chosen!r}.")
    return chosen


def _read_packaged(source: str, columns: Columns, name: str) -> Table | None:
    from tfapp.data.datasets import DATASETS

    if source in DATASETS:
        check_kind(source, columns)
        contents, labels = DATASETS[source].read()
        return read_pair(contents, labels, name=source, columns=columns)
    fitting = [known for known, dataset in DATASETS.items() if dataset.kind == columns.keyword]
    looks_like_a_path = any(sign in source for sign in "/\\.*?[~") or Path(source).exists()
    if not source or looks_like_a_path:
        return None
    raise DataError(
        f"{name}={source!r} is no file or folder here and no packaged data set; {nearest(source, fitting)}"
    )


def check_kind(name: str, columns: Columns) -> None:
    """Refuses a packaged data set of texts where images are wanted, and the other way round.

    Args:
        name: The name of a packaged data set.
        columns: Says what is wanted.

    Raises:
        DataError: If it is of the other kind.
    """
    from tfapp.data.datasets import DATASETS

    kind = DATASETS[name].kind
    if kind != columns.keyword:
        fitting = [known for known, dataset in DATASETS.items() if dataset.kind == columns.keyword]
        raise DataError(
            f"{name!r} is a packaged data set of {kind}s, read by load_{kind}_data; {nearest('', fitting)}."
        )


def find_paths(source: str | Path, name: str) -> list[Path]:
    """Finds the files that a path or a pattern names.

    Args:
        source: A path, or a pattern such as ``"train-*.csv"``.
        name: The argument it was given as.

    Returns:
        The path, or the matching files in the order of their names.

    Raises:
        DataError: If there is none.
    """
    path = Path(source).expanduser()
    if str(source) == "":
        raise DataError(f"{name} is an empty path; give a file, a pattern or a folder of class folders.")
    if path.exists():
        return [path]
    pattern = str(path)
    if glob.has_magic(pattern):
        matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
        if not matches:
            raise DataError(f"{name}={pattern!r} matches no files; check the pattern and the current folder.")
        return [match for match in matches if match.is_file()] or matches
    folder = path.parent
    if not folder.is_dir():
        raise DataError(f"{path} does not exist: there is no folder {folder}.")
    beside = [entry.name for entry in folder.iterdir()]
    raise DataError(f"{path} does not exist.{did_you_mean(path.name, beside)}")
