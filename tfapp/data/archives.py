"""Archives of images: unpacked once into the cache, with nothing written outside of it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from tfapp.assets import cache_dir
from tfapp.data.archive_members import excessive, members, unsafe
from tfapp.data.readers.folder import visible
from tfapp.errors import DataError, writing_problem

_logger = logging.getLogger("tfapp")
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_MOST_GROWTH, _ALWAYS_ALLOWED = 100, 1 << 30
_BLOCK = 1 << 20
_DAMAGED = (
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_NO_FILE_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EILSEQ, errno.EINVAL)


def names_archive(path: str | Path) -> bool:
    """Tells by the suffix whether a path or a pattern means archives that can be unpacked.

    Args:
        path: The path or pattern.

    Returns:
        True for ``.tar``, ``.tar.gz``, ``.tgz`` and ``.zip``, unless it is a folder.
    """
    return str(path).lower().endswith(_SUFFIXES) and not Path(path).is_dir()


def unpack(archive: Path) -> Path:
    """Unpacks an archive into the cache, once for its content.

    Args:
        archive: A tar or zip file.

    Returns:
        The folder of its files; where they all lie in one folder that holds folders, that one.

    Raises:
        DataError: If it is damaged, holds links or paths that lead elsewhere, is much larger unpacked than
            it is (more than 100 times, and 1 GB), has more than ten million members or headers of more than
            1 MB, or cannot be read or written.
    """
    try:
        with archive.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"the archive {archive} cannot be read: {error.strerror or error}; make it readable, or copy it "
            "again."
        ) from error
    try:
        parent = cache_dir() / "archives"
        folder = parent / sha256[:32]
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / f"{folder.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = parent / f"{folder.name}.json"
            if not _is_whole(folder, record):
                shutil.rmtree(folder, ignore_errors=True)
                _fill(folder, archive)
                record.write_text(json.dumps(_size(folder)), encoding="utf-8")
    except OSError as error:
        cures = {
            "full": "free some space there",
            "denied": "make the cache writable",
            None: "check the disks",
        }
        raise DataError(
            f"{archive} cannot be unpacked into the cache {cache_dir()}: {error.strerror or error}; "
            f"{cures[writing_problem(error)]}, set TFAPP_CACHE to another folder, or unpack it yourself and "
            "pass the folder."
        ) from error
    return _content(folder)


def _is_whole(folder: Path, record: Path) -> bool:
    """Tells whether a folder still holds what was unpacked: cleaners of caches remove single files."""
    try:
        return folder.is_dir() and json.loads(record.read_text(encoding="utf-8")) == _size(folder)
    except (OSError, ValueError):
        return False


def _size(folder: Path) -> list[int]:
    """How many files there are below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return [len(sizes), sum(sizes)]


def _fill(folder: Path, archive: Path) -> None:
    for leftover in folder.parent.glob(f".partial-{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".partial-{folder.name}-", dir=folder.parent))
    _logger.info("unpacking %s into %s", archive, folder)
    try:
        _extract(archive, work)
        os.replace(work, folder)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk: decompressors set no number
        raise DataError(f"{archive} is damaged or no such archive: {error}. Copy it again.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(archive: Path, work: Path) -> None:
    left = max(_ALWAYS_ALLOWED, _MOST_GROWTH * archive.stat().st_size)
    for name, content in members(archive):
        with _create(_target(work, name, archive), name, archive) as file:
            while block := content.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    raise excessive(archive, "far more than its size lets expect")
                file.write(block)


def _create(path: Path, name: str, archive: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        if error.errno not in _NO_FILE_NAMES:
            raise
        raise DataError(
            f"{archive} holds {name[:200]!r}, which cannot be a file here ({error.strerror}); rename it, or "
            "unpack the archive yourself and pass the folder."
        ) from error


def _target(work: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise unsafe(archive, name)
    return work.joinpath(*parts)


def _content(folder: Path) -> Path:
    """Goes down where all there is is one folder of folders."""
    entries = visible(folder)
    if len(entries) == 1 and entries[0].is_dir() and any(entry.is_dir() for entry in visible(entries[0])):
        return entries[0]
    return folder
