"""Archives of images: unpacked once into the cache, with nothing written outside of it."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import logging
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tfapp.assets import cache_dir
from tfapp.data.readers.folder import visible
from tfapp.errors import DataError, writing_problem

_logger = logging.getLogger("tfapp")
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_MOST_GROWTH, _ALWAYS_ALLOWED = 100, 1 << 30
_MOST_MEMBERS = 10_000_000
_BLOCK = 1 << 20
_DAMAGED = (
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


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
            it is (more than 100 times, and 1 GB), or cannot be written.
    """
    try:
        with archive.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
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
        cure = "free some space" if writing_problem(error) == "full" else "make it writable"
        raise DataError(
            f"{archive} cannot be unpacked into the cache {cache_dir()}: {error.strerror or error}; "
            f"{cure}, set TFAPP_CACHE to another folder, or unpack it yourself and pass the folder."
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
    except _DAMAGED as error:
        raise DataError(f"{archive} is damaged or no such archive: {error}. Copy it again.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(archive: Path, work: Path) -> None:
    left = max(_ALWAYS_ALLOWED, _MOST_GROWTH * archive.stat().st_size)
    for count, (name, content) in enumerate(_members(archive)):
        path = _target(work, name, archive)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while block := content.read(_BLOCK):
                left -= len(block)
                if left < 0 or count > _MOST_MEMBERS:
                    raise DataError(
                        f"{archive} holds far more than its size lets expect; it was not unpacked. "
                        "If that is right, unpack it yourself and pass the folder."
                    )
                file.write(block)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the names and contents of an archive's files, one after another."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise _unsafe(archive, info.filename)
                with opened.open(info) as content:
                    yield info.filename, content
        return
    with tarfile.open(archive, "r|*") as stream:
        for member in stream:
            if member.isdir():
                continue
            extracted = stream.extractfile(member) if member.isreg() else None
            if extracted is None:
                raise _unsafe(archive, member.name)
            yield member.name, extracted


def _target(work: Path, name: str, archive: Path) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise _unsafe(archive, name)
    return work.joinpath(*parts)


def _unsafe(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive} holds {name!r}, a link, a device or a path that leads elsewhere; it was not unpacked."
    )


def _content(folder: Path) -> Path:
    """Goes down where all there is is one folder of folders."""
    entries = visible(folder)
    if len(entries) == 1 and entries[0].is_dir() and any(entry.is_dir() for entry in visible(entries[0])):
        return entries[0]
    return folder
