"""Staging and publishing: a version folder appears at once and whole, or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tfapp.disk import locked, rename_new, sync, try_lock, writing
from tfapp.release.integrity import linked_files
from tfapp.release.versions import version_number

_STAGING = ".staging-"
_REMOVED = ".removed-"
SPACE = "free some space or choose another folder; an export with fewer variants needs less"
"""What to do on a disk that cannot hold a release."""


@dataclass(frozen=True)
class Staging:
    """A hidden folder beside the versions in which a release is made.

    Attributes:
        directory: ``saved_models/<name>``.
        release: What becomes the version folder.
        scratch: For everything else; it goes away.
    """

    directory: Path
    release: Path
    scratch: Path


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Staging]:
    """Makes a staging folder, and removes it with whatever is left in it.

    Staging folders of processes that are gone are removed, too.

    Args:
        directory: ``saved_models/<name>``, made when missing.

    Yields:
        The folders to work in.

    Raises:
        OutputError: When the folder cannot be written or the disk is full.
    """
    made = not directory.exists()
    with writing(directory, full=SPACE):
        root, lock = _staging_folder(directory)
    try:
        with writing(directory, full=SPACE):
            stage = Staging(directory, root / "release", root / "scratch")
            stage.release.mkdir()
            stage.scratch.mkdir()
            yield stage
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        if made:
            # Fails, as it should, when something was published or somebody else works there.
            with contextlib.suppress(OSError):
                directory.rmdir()


def publish(stage: Staging, finish: Callable[[int], object]) -> tuple[Path, int]:
    """Moves a finished release to the next free version.

    Args:
        stage: The staging folder.
        finish: Called with the version before each attempt, to write it into the manifest.

    Returns:
        The version folder and its number.

    Raises:
        OutputError: When the folder cannot be written.
    """
    _sync_tree(stage.release)
    while True:
        with locked(stage.directory):
            numbers = (version_number(path) for path in stage.directory.iterdir())
            version = max((number for number in numbers if number is not None), default=0) + 1
            finish(version)
            # The release must be on the disk before its name is.
            _sync_tree(stage.release, deep=False)
            if _moved(stage.release, stage.directory / str(version)):
                return stage.directory / str(version), version


def refuse(stage: Staging) -> Path:
    """Moves a refused release to where no server looks.

    Args:
        stage: The staging folder.

    Returns:
        ``refused-<timestamp>`` beside the versions.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        target = stage.directory / (f"refused-{stamp}" if number == 1 else f"refused-{stamp}-{number}")
        if _moved(stage.release, target):
            break
    return target


def discard(path: Path) -> None:
    """Removes a folder in one step: it loses its name first, so that nobody ever sees half of it.

    What a killed process leaves of it is hidden, and the next export or `discard_leftovers` removes it.

    Args:
        path: An entry of ``saved_models/<name>``.

    Raises:
        OSError: When it cannot be renamed.
    """
    hidden = path.with_name(f"{_REMOVED}{path.name}-{secrets.token_hex(4)}")
    path.rename(hidden)
    sync(path.parent)
    shutil.rmtree(hidden, ignore_errors=True)


def leftovers(directory: Path) -> list[Path]:
    """Lists what killed processes have left: half-made releases, and half-removed ones.

    Args:
        directory: ``saved_models/<name>``.

    Returns:
        Hidden folders that no living process works in.
    """
    found = list(directory.glob(f"{_REMOVED}*"))
    for path in directory.glob(f"{_STAGING}*"):
        # An export that has just ended removes its own folder.
        with contextlib.suppress(FileNotFoundError):
            lock = try_lock(path)
            if lock is not None:
                found.append(path)
                os.close(lock)
    return sorted(found)


def discard_leftovers(directory: Path) -> None:
    """Removes what killed processes have left; the caller has `locked` the folder.

    Args:
        directory: ``saved_models/<name>``.
    """
    for path in leftovers(directory):
        shutil.rmtree(path, ignore_errors=True)


def _moved(source: Path, target: Path) -> bool:
    if not rename_new(source, target):
        return False
    sync(target.parent)
    sync(source.parent)
    return True


def own_files(stage: Staging) -> None:
    """Copies files that have a second name elsewhere, through which a release could be changed.

    Args:
        stage: The staging folder.
    """
    for name in linked_files(stage.release):
        copy = stage.scratch / "own-copy"
        shutil.copy(stage.release / name, copy)
        copy.replace(stage.release / name)


def _sync_tree(directory: Path, *, deep: bool = True) -> None:
    for path in directory.rglob("*") if deep else directory.iterdir():
        sync(path)
    sync(directory)


def _staging_folder(directory: Path) -> tuple[Path, int | None]:
    while True:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        # A failing export takes the folder away that it made, perhaps at this very moment.
        # The lock keeps others from cleaning while a staging folder is made and not yet locked.
        with contextlib.suppress(FileNotFoundError), locked(directory):
            for path in missing:
                sync(path.parent)
            discard_leftovers(directory)
            root = directory / f"{_STAGING}{os.getpid()}-{secrets.token_hex(4)}"
            root.mkdir()
            # The system releases the lock when the process ends, however it ends.
            return root, try_lock(root)
