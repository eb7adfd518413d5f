"""Folders that several processes write to: their locks, and what cannot be written in one wording."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tfapp.errors import OutputError, TfappError, writing_problem

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
# Of Linux's renameat2: paths relative to the current folder, and not over another.
_HERE, _NOREPLACE = -100, 1
# Longer than a file of a few kilobytes is being written.
_UNFINISHED_SECONDS = 600
LOCK = ".lock"
"""The file that `held` locks, with the process that holds it."""
_LOCKS = Path("/proc/locks")
_FREE = "free some space or choose another folder"


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Lets one process at a time into a folder, or many that only read; the system frees a dead one's lock.

    Args:
        folder: An existing folder.
        shared: Whether others that ask so may be in it at the same time.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(folder: Path) -> int | None:
    """Locks a folder without waiting.

    Args:
        folder: An existing folder.

    Returns:
        The descriptor, whose closing ends the lock; None where somebody else has it or locks do not work.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def held(directory: Path, *, cure: str) -> Iterator[None]:
    """Keeps other processes out of a folder; the system frees a dead one's lock, so none is ever stale.

    Args:
        directory: The folder; made when missing.
        cure: What else to do than to wait, for the message.

    Raises:
        OutputError: Another process holds it.
        OSError: It cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise OutputError(
                f"{directory}: another run is writing here (process {owner}); wait for it, stop it or {cure}."
            ) from error
        except OSError:  # some network file systems have no locks
            pass
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def is_held(directory: Path) -> bool:
    """Tells whether a process holds a folder, without getting in the way of one that wants to.

    Where the system lists its locks, they are looked up; elsewhere, and where it names the file's number but
    another device, a lock that many may have is tried, for a moment.

    Args:
        directory: The folder.
    """
    path = directory / LOCK
    try:
        about, owner = path.stat(), path.read_text(encoding="utf-8")
    except OSError:
        return False
    with contextlib.suppress(OSError):
        listed = _LOCKS.read_text(encoding="ascii")
        devices = re.findall(rf" ([0-9a-f]+:[0-9a-f]+):{about.st_ino} ", listed)
        if f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}" in devices:
            return True
        # Another file may have the number; but btrfs and overlays give a file another device than they list.
        if not devices and owner.endswith(f" on {socket.gethostname()}"):
            return False
    with contextlib.suppress(OSError), path.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading, but no link, which may lead anywhere, and no pipe, which would be waited for.

    Args:
        path: The file.

    Returns:
        The open file.

    Raises:
        OSError: When it is no plain file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return file


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, has reached the disk.

    Args:
        path: A file or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network folders cannot do this.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: str, *, mode: int | None = None) -> None:
    """Replaces a file at once and whole, as somebody may be reading it.

    Args:
        path: The file, in an existing folder.
        content: Its new content, written as UTF-8, with the ends of lines that it has.
        mode: Its permissions; those of a new file when None.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.write_text(content, encoding="utf-8", newline="")
        if mode is not None:
            temporary.chmod(mode)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Removes what `replace_file` left when its process was killed, but nothing that may still be written.

    What cannot be removed stays: nobody reads it.

    Args:
        folder: An existing folder.
        names: Names of the files that are written there.
    """
    latest = time.time() - _UNFINISHED_SECONDS
    for name in names:
        for path in folder.glob(f".{glob.escape(name)}-{'[0-9a-f]' * 8}"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < latest:
                    path.unlink()


def rename_new(source: Path, target: Path) -> bool:
    """Renames a folder if nothing has the new name; a plain rename would replace an empty folder.

    Args:
        source: The folder.
        target: Its new path, on the same file system.

    Returns:
        Whether the name was free.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        names = os.fsencode(source), os.fsencode(target)
        if rename(_HERE, names[0], _HERE, names[1], _NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number in _TAKEN:
            return False
        if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), str(source), None, str(target))
    # Other systems, and file systems that know no such flag, leave a moment in between.
    if target.exists():
        return False
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


@contextlib.contextmanager
def writing(
    directory: Path, *, full: str = _FREE, denied: str = "make it writable or choose another folder"
) -> Iterator[None]:
    """Turns errors of writing into errors that tell the cure; others pass.

    Args:
        directory: Where is written, for the message.
        full: What to do when the disk is full.
        denied: What to do when the folder cannot be written.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except TfappError:
        raise
    except Exception as error:
        problem = writing_problem(error)
        if problem == "full":
            raise disk_full(directory, cure=full) from error
        if problem == "denied" and isinstance(error, OSError):
            place = error.filename or directory
            raise OutputError(f"{place}: cannot be written ({error.strerror}); {denied}.") from error
        raise


def disk_full(directory: Path, *, needed: int | None = None, cure: str = _FREE) -> OutputError:
    """Words the error of a full disk.

    Args:
        directory: Where is written.
        needed: Bytes that are needed, if known.
        cure: What to do.

    Returns:
        The error.
    """
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    wish = "" if needed is None else f" and about {needed / 1e6:.0f} MB are needed"
    return OutputError(f"{directory}: the disk is full, {free / 1e6:.0f} MB are free{wish}; {cure}.")
