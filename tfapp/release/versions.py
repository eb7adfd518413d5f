"""The folder ``saved_models/<name>``: its versions, and which of them a path means."""

from __future__ import annotations

import re
from pathlib import Path

from tfapp.errors import OutputError, ReleaseError
from tfapp.release.layout import MANIFEST_FILE
from tfapp.release.manifest_schema import NAME_PATTERN

_NUMBER = re.compile(r"[0-9]{1,19}")
_MOST = 2**63 - 1  # of the integers in which servers keep them


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


def version_number(path: Path) -> int | None:
    """Reads the name of an entry of ``saved_models/<name>`` as a server does that scans it.

    Args:
        path: The entry; whether it is a folder is not looked at.

    Returns:
        The number, or None where the name is none, or one that servers have no room for.
    """
    number = int(path.name) if _NUMBER.fullmatch(path.name) else None
    return None if number is None or number > _MOST else number


def versions_in(directory: Path) -> dict[int, Path]:
    """Finds the version folders of a model.

    Args:
        directory: ``saved_models/<name>``.

    Returns:
        Folders by their number, rising; of ``7`` and ``007``, the first.
    """
    # Of names of one number, the shortest comes last and stays.
    children = sorted(directory.iterdir(), key=lambda child: len(child.name), reverse=True)
    numbered = {version_number(child): child for child in children if child.is_dir()}
    return {number: numbered[number] for number in sorted(key for key in numbered if key is not None)}


def version_folder(path: str | Path) -> Path:
    """Finds the release that a path means.

    Args:
        path: A version folder, or ``saved_models/<name>`` for its newest version.

    Returns:
        The absolute path of the version folder.

    Raises:
        ReleaseError: When it is neither.
    """
    directory = Path(path).expanduser().absolute()
    if not directory.is_dir():
        raise ReleaseError(f"{directory} is not a folder; give a release such as saved_models/<name>/1.")
    if (directory / MANIFEST_FILE).is_file():
        return directory
    versions = versions_in(directory)
    if not versions:
        raise ReleaseError(
            f"{directory} is not a release and has no released version: it holds neither {MANIFEST_FILE} nor "
            "a folder with a number for a name."
        )
    return versions[max(versions)]
