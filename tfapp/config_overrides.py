"""Settings of the command line that replace those of a workflow file: ``--set train.batch_size=16``."""

from __future__ import annotations

import tomllib
from typing import Any

from tfapp.errors import ConfigError


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one ``key=value`` in a parsed workflow file.

    Args:
        document: The parsed file; it is changed.
        override: The setting: the key dotted, the value as in TOML; a bare word is a string.

    Raises:
        ConfigError: The setting has no key, or a key that leads nowhere, or no value.
    """
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: expected key=value, such as --set train.batch_size=16")
    place: Any = document
    for position, part in enumerate(parts):
        where = ".".join(parts[:position]) or "the file"
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(
                    f"--set {override}: {where} is a list of {len(place)} in the file; "
                    f"{part!r} is none of its positions, which count from 0"
                )
        elif not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {where} is a value, so it has no key {part!r}")
        index: Any = int(part) if isinstance(place, list) else part
        if position == len(parts) - 1:
            place[index] = _parse_value(override, text.strip())
        else:
            place = place[index] if isinstance(place, list) else place.setdefault(part, {})


def _parse_value(override: str, text: str) -> Any:
    """Reads a value as TOML does; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"--set {override}: {text} is not a TOML value: {error}") from error
        return text
