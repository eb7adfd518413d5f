"""Saved data: three Parquet files and the report that names them, written all or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfapp.data.image_storage import COPIES, image_copies, image_table, read_images
from tfapp.data.report import DataReport
from tfapp.data.split_data import SPLITS
from tfapp.disk import locked, writing
from tfapp.errors import DataError, OutputError

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.split_data import SplitData
    from tfapp.data.text import TextData

REPORT = "report.json"
"""The file of a folder of saved data that says what was read and left out."""

_PARTIAL = ".partial"
_FILE = re.compile(
    r"(train|validation|test)-[0-9a-f]{16}\.(parquet|images)(\.partial)?|report\.json(\.partial)?"
)
_SCHEMA_VERSION = 2
Data = TypeVar("Data", bound="SplitData[Any]")


def save_data(data: SplitData[Any], directory: Path) -> Path:
    """Writes data into a folder, all or nothing.

    The report names the files by their checksums and is replaced last, in one step: until then the folder
    holds what it held before, however the process ends. The next call removes what an interrupted one left.

    Args:
        data: What to write.
        directory: The folder; one that holds saved data is replaced.

    Returns:
        The folder.

    Raises:
        OutputError: If it cannot be written, or holds something else.
    """
    same = "nothing was changed"
    full, denied = f"free some space; {same}", f"choose a folder that you may write to; {same}"
    with _reporting(directory), writing(directory, full=full, denied=denied):
        if directory.exists() and not _may_be_replaced(directory):
            raise OutputError(
                f"{directory} exists and holds no saved data; name another folder, or remove it."
            )
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            try:
                _write(data, directory)
            finally:
                _sweep(directory)
                if made and not any(directory.iterdir()):
                    directory.rmdir()
    return directory


@contextlib.contextmanager
def _reporting(directory: Path) -> Iterator[None]:
    """Says of all that went wrong with the disk where it did."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            f"{directory}: cannot be written ({reason}); nothing was changed, choose another folder."
        ) from error


def load_saved_text_data(directory: Path) -> TextData:
    """Reads text data that ``save_data`` wrote.

    Args:
        directory: The folder.

    Returns:
        The same data, with the same fingerprint.

    Raises:
        DataError: If it is missing or damaged.
    """
    from tfapp.data.text import TextData, TextSplit

    def make_split(name: str, table: Any, path: Path, classes: tuple[str, ...]) -> TextSplit:
        labels = np.asarray(table.column("label"), np.int32)
        return TextSplit(name, tuple(table.column("text").to_pylist()), labels, classes)

    return _load(directory, TextData, make_split)


def load_saved_image_data(directory: Path) -> ImageData:
    """Reads image data that ``save_data`` wrote.

    Args:
        directory: The folder.

    Returns:
        The same data, with the same fingerprint.

    Raises:
        DataError: If it is missing or damaged, or an image file is gone or has another size.
    """
    from tfapp.data.image import ImageData, ImageSplit

    def make_split(name: str, table: Any, path: Path, classes: tuple[str, ...]) -> ImageSplit:
        images, digests = read_images(table, path)
        return ImageSplit(name, images, np.asarray(table.column("label"), np.int32), classes, digests)

    return _load(directory, ImageData, make_split)


def _load(directory: Path, data_type: type[Data], make_split: Callable[..., Any]) -> Data:
    path = directory / REPORT
    if not path.is_file():
        raise DataError(f"{directory} holds no saved data: there is no {path}.")
    try:
        with locked(directory, shared=True):
            return _read(directory, data_type, make_split)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory} is damaged: {error}. Remove it and prepare the data again.") from error


def _read(directory: Path, data_type: type[Data], make_split: Callable[..., Any]) -> Data:
    path = directory / REPORT
    header = json.loads(path.read_text(encoding="utf-8"))
    if header["schema_version"] != _SCHEMA_VERSION:
        raise DataError(f"{path} has schema_version {header['schema_version']}; prepare the data again.")
    if (kind := header.get("kind", "text")) != data_type.kind:
        raise DataError(f"{directory} holds {kind} data, not {data_type.kind} data; name another folder.")
    classes = tuple(header["classes"])
    splits = {}
    for name in SPLITS:
        file = directory / _file_name(name, header["sha256"][name])
        splits[name] = make_split(name, pq.read_table(file), file, classes)
        if splits[name].sha256 != header["sha256"][name]:
            raise DataError(f"{file} is not what was saved (sha256 differs); prepare it again.")
    report = DataReport.from_dict(header["report"])
    return data_type(**splits, classes=classes, report=report, seed=header["seed"], task=header["task"])


def _file_name(split: str, sha256: str) -> str:
    return f"{split}-{sha256[:16]}.parquet"


def _text_table(split: Any) -> Any:
    return pa.table(
        {"text": pa.array(split.texts, pa.large_string()), "label": pa.array(split.labels, pa.int32())}
    )


def _write(data: SplitData[Any], folder: Path) -> None:
    for name, split in data.splits.items():
        path = folder / _file_name(name, split.sha256)
        copies = image_copies(split) if data.kind == "image" else None
        if copies is not None:
            beside = path.with_suffix(COPIES)
            with open(f"{beside}{_PARTIAL}", "wb") as target:
                target.writelines(copies)
            os.replace(f"{beside}{_PARTIAL}", beside)
        table = image_table(split) if data.kind == "image" else _text_table(split)
        pq.write_table(table, f"{path}{_PARTIAL}", compression="zstd")
        os.replace(f"{path}{_PARTIAL}", path)
    header = {
        "schema_version": _SCHEMA_VERSION,
        "kind": data.kind,
        "task": data.task,
        "seed": data.seed,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "sha256": {name: split.sha256 for name, split in data.splits.items()},
        "report": data.report.to_dict(),
    }
    text = json.dumps(header, indent=2, ensure_ascii=False) + "\n"
    partial = folder / f"{REPORT}{_PARTIAL}"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, folder / REPORT)


def _sweep(folder: Path) -> None:
    """Removes the files of other data than the report names, and half-written ones."""
    try:
        header = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        tables = [_file_name(name, sha256) for name, sha256 in header["sha256"].items()]
        kept = {REPORT, *tables, *(str(Path(name).with_suffix(COPIES)) for name in tables)}
    except FileNotFoundError:
        kept = set()
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # a damaged report does not tell which files are whose
    for path in folder.iterdir():
        if _FILE.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)


def _may_be_replaced(target: Path) -> bool:
    """Tells whether a folder holds saved data, what is left of an interrupted save, or nothing."""
    return target.is_dir() and (
        (target / REPORT).is_file() or all(_FILE.fullmatch(path.name) for path in target.iterdir())
    )
