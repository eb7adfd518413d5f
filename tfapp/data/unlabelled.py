"""Texts without labels: read, cleaned, and kept apart from the rows that have some."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tfapp.data.cleaning import text_key
from tfapp.data.readers import find_paths, format_of, read_source
from tfapp.data.readers.decoding import read_utf8
from tfapp.data.readers.table import Columns
from tfapp.errors import DataError

_LOG = logging.getLogger("tfapp")
_KEYWORD = "unlabelled"


def load_unlabelled_texts(
    source: str | Path | Sequence[str], *, text: str = "text", encoding: str = "utf-8"
) -> tuple[str, ...]:
    """Reads texts that have no labels, equal ones once.

    Args:
        source: The texts themselves; or the path or pattern of ``.txt`` files with a text a line, or of CSV,
            TSV, JSON lines or Parquet files with a column of texts.
        text: That column, or key.
        encoding: The encoding of text files.

    Returns:
        The texts in their order, without empty ones.

    Raises:
        DataError: When a file cannot be read, or there is no text.
    """
    if isinstance(source, str | Path):
        found = [part for path in unlabelled_paths(source) for part in _read(path, text, encoding)]
    else:
        found = list(source)
        wrong = next((place for place, each in enumerate(found) if not isinstance(each, str)), None)
        if wrong is not None:
            raise DataError(f"{_KEYWORD}, index {wrong} is {found[wrong]!r:.60}, not a string.")
    texts = _distinct(found, known=())
    if not texts and isinstance(source, str | Path):
        raise DataError(f"{_KEYWORD} = {str(source)!r} holds no text.")
    return texts


def unlabelled_paths(source: str | Path) -> list[Path]:
    """Finds the files of texts without labels.

    Args:
        source: A path or pattern.

    Returns:
        The files.

    Raises:
        DataError: When there is none, or one is of an unknown format.
    """
    paths = find_paths(source, _KEYWORD)
    for path in paths:
        if path.is_dir():
            raise DataError(f"{_KEYWORD} = {str(path)!r} is a folder: name files, such as 'texts/*.txt'.")
        if path.suffix.lower() != ".txt":
            format_of(path, None)
    return paths


def without_known(texts: Iterable[str], data: Any) -> tuple[str, ...]:
    """Leaves out texts that stand among the rows of a data set: what is held out must not be learned.

    Args:
        texts: Texts without labels.
        data: `TextData`.

    Returns:
        The others.
    """
    given = list(texts)
    known = (row for split in data.splits.values() for row in split.texts)
    kept = _distinct(given, known=known)
    if len(kept) < len(given):
        left = len(given) - len(kept)
        words = "1 text without a label is" if left == 1 else f"{left:,} texts without labels are"
        _LOG.info("%s left out: empty, there twice, or a row of the data", words)
    return kept


def _read(path: Path, text: str, encoding: str) -> list[str]:
    if path.suffix.lower() == ".txt":
        return [line.removesuffix("\r") for line in read_utf8(path, encoding).decode("utf-8").split("\n")]
    table = read_source(path, Columns(text, ""), name=_KEYWORD, format=None, encoding=encoding)
    return [value for value in table.texts.tolist() if value is not None]


def _distinct(texts: Iterable[str], *, known: Iterable[str]) -> tuple[str, ...]:
    seen = {"", *(text_key(text) for text in known)}
    kept = []
    for text in texts:
        key = text_key(text)
        if key not in seen:
            seen.add(key)
            kept.append(text)
    return tuple(kept)
