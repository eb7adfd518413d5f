"""Staging and publishing: a version folder appears at once and whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tfapp.disk import locked, try_lock, writing
from tfapp.errors import OutputError
from tfapp.release.manifest import NAME_PATTERN

_PREFIX = ".staging-"
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
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


def check_name(directory: Path) -> str:
    """Refuses a release name that is no safe path and model name.

    Args:
        directory: ``saved_models/<name>``.

    Returns:
        The name.

    Raises:
        OutputError: When the name may not be used.
    """
    name = directory.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise OutputError(
            f"release name {name!r}: use 1 to 64 of the characters a-z, 0-9, _ and -, starting with a letter "
            "or a digit; it becomes a folder and the model's name on a server."
        )
    return name


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
        taken = [int(path.name) for path in stage.directory.iterdir() if path.name.isdecimal()]
        version = max(taken, default=0) + 1
        finish(version)
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


def _moved(source: Path, target: Path) -> bool:
    # A rename would replace an empty folder that somebody has just made.
    if target.exists():
        return False
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    _sync(target.parent)
    return True


def _sync_tree(directory: Path, *, deep: bool = True) -> None:
    for path in directory.rglob("*") if deep else directory.iterdir():
        _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network folders cannot do this.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _staging_folder(directory: Path) -> tuple[Path, int | None]:
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        # A failing export takes the folder away that it made, perhaps at this very moment.
        # The lock keeps others from cleaning while a staging folder is made and not yet locked.
        with contextlib.suppress(FileNotFoundError), locked(directory):
            _remove_stale(directory)
            root = directory / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
            root.mkdir()
            # The system releases the lock when the process ends, however it ends.
            return root, try_lock(root)


def _remove_stale(directory: Path) -> None:
    for path in directory.glob(f"{_PREFIX}*"):
        # An export that has just ended removes its own folder.
        with contextlib.suppress(FileNotFoundError):
            lock = try_lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
