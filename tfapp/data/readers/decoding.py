"""Reading a text file's bytes as valid UTF-8, or saying where they are not."""

from __future__ import annotations

import codecs
from pathlib import Path

from tfapp.data.readers.detection import resolve_encoding, sure_encoding, two_encodings
from tfapp.errors import DataError, did_you_mean

_UTF8_NAMES = ("utf-8", "utf-8-sig", "ascii")
_COMMON = ("auto", "utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "gb18030", "gbk", "big5", "shift_jis")
_LARGE_CHUNK = 1 << 26


def check_encoding(encoding: str) -> str:
    """Resolves the name of an encoding.

    Args:
        encoding: A name that Python knows, such as ``"utf-8"`` or ``"gb18030"``, or ``"auto"``.

    Returns:
        Python's own name of it; ``"auto"`` as it is.

    Raises:
        DataError: If there is no such text encoding.
    """
    if encoding == "auto":
        return encoding
    try:
        codec = codecs.lookup(encoding)
        "".encode(encoding)  # refuses codecs that are no text encodings, such as base64
    except (LookupError, ValueError) as error:
        raise DataError(
            f"encoding={encoding!r} is unknown.{did_you_mean(encoding, _COMMON)} "
            f"Common ones: {', '.join(_COMMON)}."
        ) from error
    return codec.name


def read_utf8(path: Path, encoding: str) -> bytes:
    """Reads a text file and returns its content as valid UTF-8 without a byte order mark.

    Args:
        path: The file.
        encoding: The file's encoding; UTF-8 may begin with a byte order mark. With ``"auto"`` it is detected
            where its bytes leave no doubt.

    Returns:
        UTF-8 bytes without NUL; none for an empty file.

    Raises:
        DataError: If the file cannot be read, is not in this encoding, leaves doubt, or holds NUL bytes.
    """
    name = check_encoding(encoding)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    name = resolve_encoding(path, data, name)
    if name in _UTF8_NAMES:
        _check_utf16_mark(path, data)
        _check_nul(path, data)
        _check_utf8(path, data, name)
        return data.removeprefix(codecs.BOM_UTF8)
    text = _decode(path, data, name).removeprefix("\ufeff")
    try:
        recoded = text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line} holds half a surrogate pair; repair the file.") from error
    _check_nul(path, recoded)
    return recoded


def refuse_blank(path: Path, data: bytes) -> None:
    """Refuses a file of rows that holds none.

    Args:
        path: The file.
        data: Its content.

    Raises:
        DataError: If there is nothing but white space.
    """
    if not data or data.isspace():
        raise DataError(f"{path} is empty; give a file that holds rows.")


def _check_utf16_mark(path: Path, data: bytes) -> None:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} begins with the byte order mark of UTF-16; pass encoding='utf-16'.")


def _check_nul(path: Path, data: bytes) -> None:
    offset = data.find(b"\0")
    if offset >= 0:
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path}, line {line} holds a NUL byte (byte offset {offset}); the file is binary, damaged or "
            "UTF-16. Repair it, or pass encoding='utf-16'."
        )


def _check_utf8(path: Path, data: bytes, name: str) -> None:
    decoder = codecs.getincrementaldecoder(name.removesuffix("-sig"))()
    view = memoryview(data)
    for start in range(0, len(data), _LARGE_CHUNK):
        try:
            decoder.decode(view[start : start + _LARGE_CHUNK], final=start + _LARGE_CHUNK >= len(data))
        except UnicodeDecodeError:
            _decode(path, data, name)


def _decode(path: Path, data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line} is not {name}: byte 0x{data[error.start]:02x} at byte offset "
            f"{error.start}. {_cure(data, name)}"
        ) from error
    except UnicodeError as error:
        raise DataError(
            f"{path} is not {name}: {error}. Pass the file's encoding with encoding=..."
        ) from error


def _cure(data: bytes, refused: str) -> str:
    mixed = two_encodings(data) if refused in _UTF8_NAMES else ""
    if mixed:
        return mixed[0].upper() + mixed[1:]
    sure = sure_encoding(data)
    if sure not in (None, refused):
        return f"Its bytes show that it is {sure}: pass encoding={sure!r}, or save it as UTF-8."
    return f"Pass the file's encoding, such as {_guess(data, refused)}, or save it as UTF-8."


def _guess(data: bytes, refused: str) -> str:
    sample = data[: 1 << 20].rsplit(b"\n", 1)[0]
    fitting = []
    for name in ("utf-8", "gb18030", "shift_jis", "cp1252", "latin-1"):
        try:
            sample.decode(name)
        except UnicodeDecodeError:
            continue
        if name != refused:
            fitting.append(f"encoding={name!r}")
    return " or ".join(fitting[:2]) or "encoding='latin-1'"
