"""Readers: files, folders and objects in memory become one table of texts and labels."""

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
from tfapp.data.readers.table import Table, concatenate
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


def read_source(source: Any, *, name: str, text: str, label: str, format: str | None, encoding: str) -> Table:
    """Reads texts and labels from anything that ``load_text_data`` accepts.

    Args:
        source: Path, glob pattern, folder, packaged name, pair, list of pairs, DataFrame or dataset.
        name: The argument it was given as, for messages: ``"source"``, ``"validation"`` or ``"test"``.
        text: The column or key of the texts.
        label: The column or key of the labels.
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
        table = _read_path(source, name, text, label, format, encoding)
    else:
        table = _read_memory(source, name, text, label)
    if len(table) == 0:
        raise DataError(f"{table.files[0] if table.files else name} holds no rows.")
    return table


def _read_memory(source: Any, name: str, text: str, label: str) -> Table:
    if isinstance(source, pd.DataFrame):
        return read_frame(source, text=text, label=label, name=name)
    if hasattr(source, "as_numpy_iterator"):
        return read_dataset(source, text=text, label=label, name=name)
    if isinstance(source, tuple) and len(source) == 2:
        if isinstance(source[0], str) or not all(hasattr(part, "__len__") for part in source):
            raise DataError(f"{name} is one (text, label) pair; give a list of pairs, or (texts, labels).")
        return read_pair(source[0], source[1], name=name)
    if isinstance(source, list | tuple):
        return read_pairs(source, name=name)
    raise DataError(
        f"{name} is a {type(source).__name__}; give a path, a pattern, a folder, a packaged data set's name, "
        "(texts, labels), a list of (text, label) pairs, a DataFrame or a tf.data.Dataset."
    )


def _read_path(
    source: str | Path, name: str, text: str, label: str, format: str | None, encoding: str
) -> Table:
    if isinstance(source, str):
        packaged = _read_packaged(source, name)
        if packaged is not None:
            return packaged
    tables = []
    for path in _paths(source, name):
        chosen = format or ("folder" if path.is_dir() else _SUFFIXES.get(path.suffix.lower()))
        if chosen is None:
            raise DataError(
                f"{path} has the suffix {path.suffix!r}, which names no format; "
                f"pass format=..., one of {', '.join(READERS)}."
            )
        if path.is_dir() != (chosen == "folder"):
            raise DataError(
                f"{path} is {'a folder' if path.is_dir() else 'no folder'}, but format={chosen!r}."
            )
        tables.append(READERS[chosen](path, text=text, label=label, encoding=encoding))
    if len({table.unit for table in tables}) > 1:
        raise DataError(f"{name}={str(source)!r} matches files of several formats; match one format.")
    return concatenate(tables)


def _read_packaged(source: str, name: str) -> Table | None:
    from tfapp.data.datasets import DATASETS

    if source in DATASETS:
        texts, labels = DATASETS[source].read()
        return read_pair(texts, labels, name=source)
    looks_like_a_path = any(sign in source for sign in "/\\.*?[~") or Path(source).exists()
    if not source or looks_like_a_path:
        return None
    raise DataError(
        f"{name}={source!r} is no file or folder here and no packaged data set; {nearest(source, DATASETS)}"
    )


def _paths(source: str | Path, name: str) -> list[Path]:
    path = Path(source).expanduser()
    if source == "":
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
