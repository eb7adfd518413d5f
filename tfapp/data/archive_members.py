"""The members of tar and zip files, one after another, with bounds on what they take."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self, cast

from tfapp.errors import DataError

_MOST_MEMBERS = 10_000_000
_MOST_HEADER = 1 << 20
_BLOCK = 1 << 16
_ENCRYPTED = 1
_COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Reads an archive from its beginning to its end.

    Args:
        archive: A tar file, compressed or not, or a file whose name ends in ``.zip``.

    Yields:
        The name and the content of each file; the content is to be read before the next one.

    Raises:
        DataError: If it holds links or devices, more than ten million members, or a header of more than 1 MB,
            or is encrypted.
    """
    each = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    for count, (name, content) in enumerate(each(archive), start=1):
        if count > _MOST_MEMBERS:
            raise excessive(archive, f"more than {_MOST_MEMBERS:,} members")
        if content is not None:
            yield name, content


def unsafe(archive: Path, name: str) -> DataError:
    """Words that an archive was not unpacked for a member that could do harm.

    Args:
        archive: The archive.
        name: The member's name.

    Returns:
        The error to raise.
    """
    return DataError(
        f"{archive} holds {name!r}, a link, a device or a path that leads elsewhere; it was not unpacked."
    )


def excessive(archive: Path, what: str) -> DataError:
    """Words that an archive was not unpacked for its size.

    Args:
        archive: The archive.
        what: What it holds too much of.

    Returns:
        The error to raise.
    """
    return DataError(
        f"{archive} holds {what}; it was not unpacked. If that is right, unpack it yourself and pass the "
        "folder."
    )


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yields every member of a zip file, a folder without content."""
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.is_dir():
                yield info.filename, None
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise unsafe(archive, info.filename)
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"{archive} is encrypted: unpack it first, and pass the folder.")
            with opened.open(info) as content:
                yield info.filename, content


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yields every member of a tar file, a folder without content."""
    with (
        _Unpacked(archive) as unpacked,
        tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|", tarinfo=_StrictInfo) as tar,
    ):
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember them all
            content = tar.extractfile(member) if member.isreg() else None
            if content is None and not member.isdir():
                raise unsafe(archive, member.name)
            unpacked.header_left = None
            yield member.name, content
            unpacked.header_left = _MOST_HEADER
        unpacked.header_left = None
        while unpacked.read(_BLOCK):
            pass  # behind the last member stands the checksum of what was compressed


class _StrictInfo(tarfile.TarInfo):
    """A header; one that is damaged is an error, and not the end of the archive as `tarfile` takes it."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Reads the next header of an archive."""
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a member's header is damaged: {error}") from error


class _Unpacked:
    """What a tar file holds when it is not compressed; refuses long headers, which are kept in memory.

    Attributes:
        header_left: How many bytes may be read before the next member is found; any number when None.
    """

    def __init__(self, archive: Path) -> None:
        with archive.open("rb") as file:
            start = file.read(max(map(len, _COMPRESSIONS)))
        opener = next((opener for sign, opener in _COMPRESSIONS.items() if start.startswith(sign)), open)
        self._content = opener(archive, "rb")
        self._archive = archive
        self.header_left: int | None = _MOST_HEADER

    def __enter__(self) -> _Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._content.close()

    def read(self, size: int) -> bytes:
        """Reads so many bytes, or fewer at the end."""
        if self.header_left is not None:
            self.header_left -= size
            if self.header_left < 0:
                raise excessive(self._archive, f"a header of more than {_MOST_HEADER >> 20} MB")
        content: bytes = self._content.read(size)
        return content
