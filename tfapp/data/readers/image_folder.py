"""A folder with one sub-folder of images per class, or with the splits as folders above the classes."""

from __future__ import annotations

import logging
from pathlib import Path

from tfapp.data.readers.folder import class_files, visible
from tfapp.data.readers.image_table import ImageTable, table_of_files
from tfapp.data.readers.table import counted, quoted
from tfapp.errors import DataError

_logger = logging.getLogger("tfapp")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
# What the graph cannot read is taken as well, so that it is reported and not overlooked.
_SUFFIXES = {"", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif"} | {
    ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".pgm", ".ppm", ".tga",
}  # fmt: skip


def find_split_folders(folder: Path) -> dict[str, Path]:
    """Finds the folders of the splits above the class folders, if there are any.

    Args:
        folder: The folder.

    Returns:
        The folder of each split (``train``; ``validation``, ``valid`` or ``val``; ``test``), empty when the
        sub-folders are classes.

    Raises:
        DataError: If there are folders of splits and others beside them, or two for one split.
    """
    entries = [entry for entry in visible(folder) if entry.is_dir()]
    named = [entry for entry in entries if entry.name.lower() in _SPLIT_NAMES]
    if not any(_SPLIT_NAMES[entry.name.lower()] == "train" and _holds_folders(entry) for entry in named):
        return {}
    others = [entry.name for entry in entries if entry not in named]
    if others:
        raise DataError(
            f"{folder} holds folders of splits ({quoted([entry.name for entry in named])}) and other folders "
            f"({quoted(others, 5)}); move either of them away."
        )
    splits: dict[str, Path] = {}
    for entry in named:
        split = _SPLIT_NAMES[entry.name.lower()]
        if split in splits:
            raise DataError(
                f"{folder} holds the {split} images twice, in {splits[split].name!r} and {entry.name!r}; "
                "keep one of them."
            )
        splits[split] = entry
    return splits


def read_image_folder(folder: Path, origin: str) -> ImageTable:
    """Finds the images of a folder whose sub-folders are the classes.

    Files are taken by their suffix, or when they have none; hidden ones are left out.

    Args:
        folder: The folder.
        origin: What the user gave, in words.

    Returns:
        The table, ordered by class and file name.

    Raises:
        DataError: If there are no class folders, or one of them holds no images.
    """
    class_folders = [entry for entry in visible(folder) if entry.is_dir()]
    if not class_folders:
        raise DataError(f"{folder} has no sub-folders; a folder of images needs one sub-folder per class.")
    paths: list[Path] = []
    labels: list[str] = []
    strangers: list[Path] = []
    for class_folder in class_folders:
        files, others = class_files(class_folder, _SUFFIXES, "images")
        paths += files
        labels += [class_folder.name] * len(files)
        strangers += others
    if strangers:
        _logger.warning(
            "%s: %s with no suffix of images left out (the first: %s)",
            folder,
            counted(len(strangers), "file"),
            strangers[0],
        )
    return table_of_files(paths, labels, origin)


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in visible(folder))
