"""Reading and writing the manifest of a release, which vouches for every file."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from tfapp.disk import open_plain
from tfapp.errors import ConfigError, ReleaseError
from tfapp.release.layout import MANIFEST_FILE
from tfapp.release.manifest_schema import Manifest

_MOST_BYTES = 1 << 26


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold: numbers that are not finite become null.

    Args:
        value: Mappings, sequences, numbers, strings and paths.

    Returns:
        The same as dicts, lists, numbers, strings, booleans and None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def write_manifest(directory: Path, content: Mapping[str, Any]) -> str:
    """Writes `manifest.json`.

    Args:
        directory: The release's folder.
        content: The manifest.

    Returns:
        The sha256 of what was written, in hexadecimal; it stands for the whole release.

    Raises:
        ReleaseError: When the content breaks the schema.
    """
    checked = _checked(plain(content), directory / MANIFEST_FILE)
    written = (json.dumps(checked, ensure_ascii=False, indent=2) + "\n").encode()
    (directory / MANIFEST_FILE).write_bytes(written)
    return hashlib.sha256(written).hexdigest()


def read_manifest(directory: Path, *, manifest_sha256: str | None = None) -> dict[str, Any]:
    """Reads and checks `manifest.json`.

    Args:
        directory: A release's folder.
        manifest_sha256: What its sha256 must be, in hexadecimal; any if None. Of a file with another one
            nothing is read.

    Returns:
        The manifest.

    Raises:
        ReleaseError: When there is none, it is not the one that is meant, or it breaks the schema.
        ConfigError: When ``manifest_sha256`` is no sha256.
    """
    path = directory / MANIFEST_FILE
    content = _bytes(directory)
    if manifest_sha256 is not None:
        found = hashlib.sha256(content).hexdigest()
        if not hmac.compare_digest(found, check_sha256(manifest_sha256)):
            raise ReleaseError(
                f"{path} is not the manifest that is meant: its sha256 is {found}, not {manifest_sha256}. "
                "This is another release, or somebody has changed it; nothing of it was used."
            )
    try:
        read = json.loads(
            content.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{path} cannot be read ({error}); copy or export the release again.") from error
    return _checked(read, path)


def manifest_checksum(directory: Path) -> str:
    """Computes the checksum of `manifest.json`, which stands for the whole release.

    Args:
        directory: A release's folder.

    Returns:
        sha256 in hexadecimal.

    Raises:
        ReleaseError: When there is no manifest.
    """
    return hashlib.sha256(_bytes(directory)).hexdigest()


def check_sha256(given: str) -> str:
    """Refuses what is no sha256.

    Args:
        given: 64 hexadecimal digits, small or capital.

    Returns:
        The same with small letters.

    Raises:
        ConfigError: When it is something else.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise ConfigError(
            f"manifest_sha256 = {given!r}: it must be the 64 hexadecimal digits that `tfapp run` printed, or "
            "`release.manifest_sha256` in Python."
        )
    return given.lower()


def _bytes(directory: Path) -> bytes:
    path = directory / MANIFEST_FILE
    try:
        with open_plain(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{directory} has no {MANIFEST_FILE}: it is not a release. Give a version folder, such as "
            "saved_models/<name>/1."
        ) from error
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read ({error}); copy or export the release again.") from error
    if len(content) > _MOST_BYTES:
        raise ReleaseError(f"{path} cannot be read (more than {_MOST_BYTES:,} bytes); it is no manifest.")
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a key that stands twice, of which one reader takes the first and another the last."""
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return read


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _checked(content: Any, path: Path) -> dict[str, Any]:
    try:
        Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ReleaseError(f"{path}: {where}: {first['msg']}. Export the release again.") from error
    return dict(content)
