"""A corpus: a text file with a text a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tfapp.errors import DataError


def digest_of_file(path: Path) -> str:
    """Computes the checksum of a file.

    Args:
        path: The file.

    Returns:
        Its sha256, in hexadecimal.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a text file.

    Args:
        path: The file, in UTF-8.

    Yields:
        Each line without its end; empty ones are passed over.

    Raises:
        DataError: If the file cannot be read or a line is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number}: no UTF-8 ({error.reason}); convert the file to UTF-8."
                    ) from error
                if text:
                    yield text
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
