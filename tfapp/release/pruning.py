"""Removing old versions: the last ones stay, and so does every version that a server is told to serve."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfapp.disk import locked, writing
from tfapp.errors import ConfigError, OutputError
from tfapp.release.layout import MANIFEST_FILE
from tfapp.release.publish import discard, discard_leftovers, leftovers
from tfapp.release.serving_files import FOLDER, MODELS_FILE
from tfapp.release.versions import check_name, version_number
from tfapp.wire.configs import ModelServerConfig

MODELS_CONFIG = Path(FOLDER) / MODELS_FILE
_REFUSED = re.compile(r"refused-\d{8}T\d{6}Z(-\d+)?")
_EVERY = 1 << 31


@dataclass(frozen=True)
class PrunedFolder:
    """A folder below ``saved_models/<name>``, and what becomes of it.

    Attributes:
        path: The folder.
        removed: Whether it goes; in a dry run, whether it would.
        reason: Why it goes or stays.
        bytes: What its files take.
    """

    path: Path
    removed: bool
    reason: str
    bytes: int


@dataclass(frozen=True)
class PruneReport:
    """What was removed and what was kept.

    Attributes:
        directory: ``saved_models/<name>``.
        dry_run: Whether nothing was removed after all.
        folders: Versions, refused releases and what killed exports left, in this order.
    """

    directory: Path
    dry_run: bool
    folders: tuple[PrunedFolder, ...]

    @property
    def freed(self) -> int:
        """Bytes of all files that were removed, or would be."""
        return sum(folder.bytes for folder in self.folders if folder.removed)

    def table(self) -> list[dict[str, str]]:
        """Returns a row for each folder, for people to read."""
        goes = "would go" if self.dry_run else "removed"
        return [
            {
                "folder": folder.path.name,
                "MB": f"{folder.bytes / 1e6:.1f}",
                "": goes if folder.removed else "kept",
                "why": folder.reason,
            }
            for folder in self.folders
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report, ready for JSON."""
        return {
            "directory": str(self.directory),
            "dry_run": self.dry_run,
            "freed_bytes": self.freed,
            "folders": [
                {
                    "folder": folder.path.name,
                    "removed": folder.removed and not self.dry_run,
                    "would_go": folder.removed,
                    "reason": folder.reason,
                    "bytes": folder.bytes,
                }
                for folder in self.folders
            ],
        }


def prune(
    directory: str | Path, *, keep: int = 3, refused: bool = False, dry_run: bool = False
) -> PruneReport:
    """Removes all but the last versions of a model.

    A version that ``serving/models.config`` names stays, whatever its number; so does a numbered folder that
    is no release. A folder is renamed to a hidden name before its files go, so that a killed `prune` leaves
    no half version; what it left, and what killed exports left, goes with the next one.

    Args:
        directory: ``saved_models/<name>``.
        keep: How many versions stay at least, 1 or more, the newest.
        refused: Whether refused releases go, too.
        dry_run: Only tells what would go.

    Returns:
        What went and what stayed, with the reasons.

    Raises:
        OutputError: When it is no such folder, files of a folder cannot be removed, which then stay in it
            under its hidden name, or ``models.config`` is there but cannot be read.
        ConfigError: When ``keep`` is less than 1.
    """
    directory = Path(directory).expanduser().absolute()
    if keep < 1:
        raise ConfigError(f"keep = {keep}: it must be 1 or more, so that a version is left.")
    _check_directory(directory)
    with writing(directory), locked(directory):
        served, newest = _served(directory / MODELS_CONFIG)
        folders = [*_versions(directory, max(keep, newest), served)]
        for path in sorted(path for path in directory.iterdir() if _REFUSED.fullmatch(path.name)):
            reason = "refused" if refused else "refused; goes with --refused"
            folders.append(PrunedFolder(path, refused, reason, _bytes(path)))
        left = _leftovers(directory)
        folders += [PrunedFolder(path, True, "left by a killed process", _bytes(path)) for path in left]
        if not folders:
            raise OutputError(f"{directory} holds no version; give saved_models/<name>.")
        if not dry_run:
            for folder in folders:
                if folder.removed and folder.path not in left:
                    discard(folder.path)
            discard_leftovers(directory)
            _check_gone(directory)
    return PruneReport(directory, dry_run, tuple(folders))


def _check_directory(directory: Path) -> None:
    check_name(directory)
    if not directory.is_dir():
        raise OutputError(f"{directory} is not a folder; give saved_models/<name>.")
    if (directory / MANIFEST_FILE).is_file() and not any(
        version_number(path) for path in directory.iterdir()
    ):
        raise OutputError(
            f"{directory} is one version; give the folder of all versions, {directory.parent.name}."
        )


def _versions(directory: Path, keep: int, served: frozenset[int]) -> list[PrunedFolder]:
    numbered = ((version_number(path), path) for path in directory.iterdir())
    found = sorted((number, path) for number, path in numbered if number is not None and path.is_dir())
    ours = [number for number, path in found if (path / MANIFEST_FILE).is_file() and not path.is_symlink()]
    newest = set(ours[-keep:])
    folders = []
    for number, path in found:
        if number in newest:
            reason = f"one of the last {keep}" if keep > 1 else "the last"
            reason = "a server is told to serve all" if keep >= _EVERY else reason
        elif number in served:
            reason = f"named in {MODELS_CONFIG.as_posix()}"
        elif number not in ours:
            reason = f"not a release of tfapp: it has no {MANIFEST_FILE}, or is a link"
        else:
            folders.append(PrunedFolder(path, True, f"older than the last {keep}", _bytes(path)))
            continue
        folders.append(PrunedFolder(path, False, reason, _bytes(path)))
    return folders


def _leftovers(directory: Path) -> list[Path]:
    """Lists the hidden folders that are to go; a file that is called like one is somebody else's."""
    return [path for path in leftovers(directory) if path.is_dir() and not path.is_symlink()]


def _check_gone(directory: Path) -> None:
    left = {path: _bytes(path) for path in _leftovers(directory)}
    if left:
        first = next(iter(left))
        raise OutputError(
            f"{directory}: {sum(left.values()) / 1e6:,.1f} MB could not be removed and still take space, "
            f"in {', '.join(each.name for each in left)}. Another user owns files of it, or a program holds "
            f"them open: `ls -lR {first}` shows whose they are; the next prune tries again."
        )


def _served(path: Path) -> tuple[frozenset[int], int]:
    """Finds what a server is told to serve: version numbers, and how many of the newest.

    Numbers of every model in the file count: one too many is kept rather than one that is served removed.
    """
    config = ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except FileNotFoundError:
        return frozenset(), 0
    except (OSError, ValueError, text_format.ParseError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}), so nobody knows what is served; repair or remove it."
        ) from error
    numbers: set[int] = set()
    newest = 0
    for model in config.model_config_list.config:
        policy = model.model_version_policy
        numbers |= {*policy.specific.versions, *model.version_labels.values()}
        newest = max(newest, _EVERY if policy.HasField("all") else policy.latest.num_versions)
    return frozenset(numbers), newest


def _bytes(folder: Path) -> int:
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(inside, name)).st_size
            except FileNotFoundError:  # a leftover that another process removes, too
                continue
    return total
