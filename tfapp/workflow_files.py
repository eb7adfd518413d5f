"""The files that a workflow reads, told by what changes when they do, so that a stage notices it."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfapp.config import WorkflowConfig
from tfapp.config_rows import RowsSection
from tfapp.config_sections import PRETRAINED
from tfapp.workflow_calls import augment_setting


def backbone_files(config: WorkflowConfig) -> dict[str, Any]:
    """Tells the files that a backbone is loaded from, so that a changed one is noticed.

    Args:
        config: The workflow.

    Returns:
        Names, bytes and times of change of the files of the backbone, where they lie here, and of a model
        that makes adversarial images; and the checksum of the file of weights, None where none is named.

    Raises:
        ConfigError: When there is no file of the weights.
    """
    from tfapp.release.integrity import sha256

    weights = config.resolve_weights()
    setting = augment_setting(config)
    attacked = setting.get("adversarial", {}).get("model") if isinstance(setting, dict) else None
    return {
        "backbone": file_signature(config.resolve_backbone()),
        "attacked": [] if attacked is None else file_signature(attacked),
        "weights": None if weights == PRETRAINED else sha256(Path(weights)),
    }


def source_files(config: WorkflowConfig, section: RowsSection, paths: Mapping[str, str]) -> dict[str, Any]:
    """Tells the files that rows are read from, so that a changed one is noticed.

    Args:
        config: The workflow, which says whether they are texts or images.
        section: Where the rows come from.
        paths: Resolved paths by split.

    Returns:
        ``files``, and for images ``images``, those that tables name and that lie elsewhere: by split names,
        bytes and times of change.

    Raises:
        DataError: When a table of paths cannot be read.
    """
    files = {split: file_signature(path) for split, path in paths.items()}
    if config.data.holds != "image":
        return {"files": files}

    from tfapp.data.readers.images import find_named_files
    from tfapp.data.readers.table import Columns

    columns = Columns(section.image, section.label, section.group, keyword="image")
    named = {
        split: find_named_files(path, columns, name=split, format=section.format)
        for split, path in paths.items()
    }
    return {"files": files, "images": {split: _signature(map(Path, found)) for split, found in named.items()}}


def file_signature(path: str) -> list[tuple[str, int, int]]:
    """Tells the files at a path or glob by name, size and time of change, so that a new file is noticed.

    As for the readers, what exists is meant as such, though its name may hold signs of a pattern.

    Args:
        path: A resolved path or glob, or a name that is no path.

    Returns:
        Name, bytes and time of change in nanoseconds of each file, sorted; empty where there is none.
    """
    found = [Path(path)] if Path(path).exists() else map(Path, glob.glob(path, recursive=True))
    files = [inner for match in found for inner in (match.rglob("*") if match.is_dir() else [match])]
    return _signature(files)


def _signature(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    found = []
    for file in files:
        try:
            about = os.stat(file)
        except (OSError, ValueError):
            continue  # the reader says what is wrong with it
        if stat.S_ISREG(about.st_mode):
            found.append((str(file), about.st_size, about.st_mtime_ns))
    return sorted(found)
