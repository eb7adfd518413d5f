"""Saved text data: three Parquet files and a report, written all or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
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
    if (
        directory.exists()
        and not (directory / _REPORT).is_file()
        and (directory.is_file() or any(directory.iterdir()))
    ):
        raise OutputError(f"{directory} exists and holds no saved data; name another folder, or remove it.")
    staging = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        _write(data, staging)
        staging.chmod(0o777 & ~_umask())
        if directory.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
            os.replace(directory, retired)
            os.replace(staging, directory)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(staging, directory)
    except OSError as error:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space" if full else "choose a folder that you may write to"
        raise OutputError(
            f"{directory} cannot be written: {error.strerror or error}; {cure}. Nothing was changed."
        ) from error
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
        for name, sha256 in header["sha256"].items():
            table = pq.read_table(directory / f"{name}.parquet")
            labels = np.asarray(table.column("label"), np.int32)
            splits[name] = TextSplit(name, tuple(table.column("text").to_pylist()), labels, classes)
            if splits[name].sha256 != sha256:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
