"""Text files in blocks of whole rows, so that a file of any size is read in little memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfapp.data.readers.decoding import check_encoding
from tfapp.data.readers.detection import resolve_encoding
from tfapp.errors import DataError

BLOCK_BYTES = 1 << 22
"""Bytes of a block, but for rows that are longer."""
_LONGEST_ROW = 1 << 28
_LINE, _RETURN, _QUOTE = 10, 13, 34
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Block:
    """Some rows of a text file.

    Attributes:
        data: UTF-8 without a byte order mark or NUL; ends with a line break.
        first: Number of its first row in the file, from 1.
        rows: How many rows it holds, blank ones included.
    """

    data: bytes
    first: int
    rows: int


def text_blocks(path: Path, encoding: str, *, quoted: str = "") -> Iterator[Block]:
    """Reads a text file block by block.

    Args:
        path: The file.
        encoding: Its encoding; UTF-8 may begin with a byte order mark.
        quoted: The delimiter between cells that may be quoted, whose line breaks end no row; empty where none
            may be. As for Arrow, a quotation mark quotes only at the beginning of a cell.

    Yields:
        The blocks in their order; blank lines at the file's beginning and end are left out.

    Raises:
        DataError: When the file cannot be read, is not in this encoding, holds NUL bytes or no rows.
    """
    rest, first, started = b"", 1, False
    for data in _decoded(path, _resolved(path, check_encoding(encoding))):
        rest += data
        if not started:
            content = rest.lstrip(b"\r\n")
            first += rest.count(b"\n", 0, len(rest) - len(content))
            rest, started = content, bool(content)
        end, rows = _last_row(rest, quoted=quoted)
        if end:
            yield Block(rest[:end], first, rows)
            rest, first = rest[end:], first + rows
        elif len(rest) > _LONGEST_ROW:
            cure = (
                "look for a quote that never closes."
                if b"\n" in rest
                else "its lines may end with carriage returns alone; save it with line feeds."
            )
            raise DataError(f"{path}, row {first} is longer than {_LONGEST_ROW >> 20} MiB: {cure}")
    rest = rest.rstrip(b"\r\n")
    if rest:
        yield Block(rest + b"\n", first, max(1, _last_row(rest + b"\n", quoted=quoted)[1]))
    elif not started:
        raise DataError(f"{path} is empty; give a file that holds rows.")


def _last_row(data: bytes, *, quoted: str) -> tuple[int, int]:
    """Where the last whole row ends that no blank line follows, and how many rows there are until then."""
    end = data.rfind(b"\n") + 1
    if not end:
        return 0, 0
    breaks = _row_ends(np.frombuffer(data, np.uint8, end), quoted)
    if not len(breaks):
        return 0, 0
    # Blank lines stay with what follows: they may be the last of the file.
    written = len(data[: int(breaks[-1]) + 1].rstrip(b"\r\n"))
    kept = int(np.searchsorted(breaks, written))
    return (int(breaks[kept]) + 1, kept + 1) if written else (0, 0)


def _row_ends(content: npt.NDArray[np.uint8], quoted: str) -> npt.NDArray[np.int64]:
    """Where rows end in content that begins with one."""
    breaks = np.flatnonzero(content == _LINE)
    quotes = np.flatnonzero(content == _QUOTE) if quoted else breaks[:0]
    if not len(quotes):
        return breaks
    before = np.where(quotes > 0, content[quotes - 1], _LINE)
    begins = np.isin(before, [_LINE, _RETURN, ord(quoted)])
    # Where each second one begins a cell, or doubles the one before, each pair of them quotes.
    if not (begins | (before == _QUOTE))[::2].all():
        quotes = _quoting(quotes.tolist(), begins.tolist())
    ends: npt.NDArray[np.int64] = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    return ends


def _quoting(quotes: list[int], begins: list[bool]) -> npt.NDArray[np.int64]:
    """Those of the quotation marks that open or close a quoted cell."""
    found: list[int] = []
    number = 0
    while number < len(quotes):
        closes = len(found) % 2 == 1
        if closes and quotes[number + 1 : number + 2] == [quotes[number] + 1]:
            number += 1  # it is doubled
        elif closes or begins[number]:
            found.append(quotes[number])
        number += 1
    return np.array(found, np.int64)


def _resolved(path: Path, name: str) -> str:
    """Detects the encoding from the beginning of the file where the user asks for it."""
    if name != "auto":
        return name
    try:
        with path.open("rb") as file:
            sample = file.read(BLOCK_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return resolve_encoding(path, sample[: sample.rfind(b"\n") + 1] or sample, name)


def _decoded(path: Path, name: str) -> Iterator[bytes]:
    """Yields the content as UTF-8, piece by piece."""
    decoder = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()
    offset, line, final = 0, 1, False
    try:
        with path.open("rb") as file:
            while not final:
                raw = file.read(BLOCK_BYTES)
                if offset == 0 and name in ("utf-8", "ascii") and raw.startswith(_UTF16):
                    raise DataError(
                        f"{path} begins with the byte order mark of UTF-16; pass encoding='utf-16'."
                    )
                final = not raw
                text = _text(decoder, raw, path, name, (offset, line), final=final)
                data = text.removeprefix("\ufeff").encode() if offset == 0 else text.encode()
                nul = data.find(b"\0")
                if nul >= 0:
                    raise DataError(
                        f"{path}, line {line + data.count(10, 0, nul)} holds a NUL byte; the file is binary, "
                        "damaged or UTF-16. Repair it, or pass encoding='utf-16'."
                    )
                offset, line = offset + len(raw), line + data.count(10)
                yield data
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _text(
    decoder: codecs.IncrementalDecoder,
    raw: bytes,
    path: Path,
    name: str,
    at: tuple[int, int],
    *,
    final: bool,
) -> str:
    offset, line = at
    try:
        text = decoder.decode(raw, final)
        text.encode()
    except UnicodeDecodeError as error:
        # What was held back of the piece before counts to this one.
        start = offset + len(raw) - len(error.object) + error.start
        number = line + error.object[: error.start].count(10)
        raise DataError(
            f"{path}, line {number} is not {name}: byte 0x{error.object[error.start]:02x} at byte offset "
            f"{start}. Pass the file's encoding, or save it as UTF-8."
        ) from error
    except UnicodeError as error:
        raise DataError(
            f"{path}, after line {line} is not {name}: {error}. Pass the file's encoding."
        ) from error
    return text


def header_of(block: Block, *, quoted: str) -> bytes:
    """Cuts the first row out of a block.

    Args:
        block: The first block of a file.
        quoted: As in `text_blocks`.

    Returns:
        The row with its line break.
    """
    ends = _row_ends(np.frombuffer(block.data, np.uint8), quoted)
    return block.data[: int(ends[0]) + 1] if len(ends) else block.data
