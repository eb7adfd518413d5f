"""Saved text data: three Parquet files and a report, written all or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfapp.data.report import DataReport
from tfapp.errors import DataError, OutputError

if TYPE_CHECKING:
    from tfapp.data.text import TextData

_REPORT = "report.json"
_SCHEMA_VERSION = 1


def save_text_data(data: TextData, directory: Path) -> Path:
    """Writes data into a folder, all or nothing.

    Args:
        data: What to write.
        directory: The folder; one that holds saved data is replaced.

    Returns:
        The folder.

    Raises:
        OutputError: If it cannot be written, or holds something else.
    """
    target = directory.absolute()
    staging = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    try:
        if target.exists() and not _may_be_replaced(target):
            raise OutputError(
                f"{directory} exists and holds no saved data; name another folder, or remove it."
            )
        staging.mkdir(parents=True)
        _write(data, staging)
        _move(staging, target)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "choose a folder that you may write to"
        raise OutputError(
            f"{directory} cannot be written: {error.strerror or error}; {cure}. Nothing was changed."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def load_saved_text_data(directory: Path) -> TextData:
    """Reads what ``save_text_data`` wrote.

    Args:
        directory: The folder.

    Returns:
        The same data, with the same fingerprint.

    Raises:
        DataError: If it is missing or damaged.
    """
    from tfapp.data.text import TextData, TextSplit

    path = directory / _REPORT
    if not path.is_file():
        raise DataError(f"{directory} holds no saved data: there is no {path}.")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["schema_version"] != _SCHEMA_VERSION:
            raise DataError(f"{path} has schema_version {header['schema_version']}; prepare the data again.")
        classes = tuple(header["classes"])
        splits = {}
        for name in ("train", "validation", "test"):
            table = pq.read_table(directory / f"{name}.parquet")
            labels = np.asarray(table.column("label"), np.int32)
            splits[name] = TextSplit(name, tuple(table.column("text").to_pylist()), labels, classes)
            if splits[name].sha256 != header["sha256"][name]:
                raise DataError(
                    f"{directory / name}.parquet is not what was saved (sha256 differs); prepare it again."
                )
        report = DataReport.from_dict(header["report"])
        return TextData(**splits, classes=classes, report=report, seed=header["seed"], task=header["task"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory} is damaged: {error}. Remove it and prepare the data again.") from error


def _write(data: TextData, folder: Path) -> None:
    for name, split in data.splits.items():
        table = pa.table(
            {"text": pa.array(split.texts, pa.large_string()), "label": pa.array(split.labels, pa.int32())}
        )
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    header = {
        "schema_version": _SCHEMA_VERSION,
        "task": data.task,
        "seed": data.seed,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "sha256": {name: split.sha256 for name, split in data.splits.items()},
        "report": data.report.to_dict(),
    }
    (folder / _REPORT).write_text(json.dumps(header, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _may_be_replaced(target: Path) -> bool:
    return target.is_dir() and ((target / _REPORT).is_file() or not any(target.iterdir()))


def _move(staging: Path, target: Path) -> None:
    """Puts the staged folder in place of what is there; a full folder cannot be replaced in one step."""
    if not target.exists():
        os.replace(staging, target)
        return
    retired = staging.with_name(f"{staging.name}-old")
    os.replace(target, retired)
    try:
        os.replace(staging, target)
    except OSError:
        os.replace(retired, target)
        raise
    shutil.rmtree(retired, ignore_errors=True)
