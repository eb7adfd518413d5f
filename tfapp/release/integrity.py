"""The files of a release: their checksums, and whatever in its folder is not a file of the release.

A release is plain files in plain folders. Links, pipes and devices are never opened: they would lead out of
the folder, or keep the reader waiting.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tfapp.disk import open_plain
from tfapp.errors import ReleaseError
from tfapp.release.layout import MANIFEST_FILE
from tfapp.release.manifest import read_manifest

_CHUNK = 1 << 20
# Part of every SavedModel, for whose files it has no use here.
_MAY_BE_EMPTY = ("assets",)
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def listing(directory: Path) -> list[str]:
    """Lists every file but the manifest, and everything else that is no folder.

    Args:
        directory: A release's folder.

    Returns:
        Paths relative to the folder, with ``/`` and in order.

    Raises:
        ReleaseError: When a folder in it cannot be read.
    """
    found = (name for name, about in _entries(directory) if not stat.S_ISDIR(about.st_mode))
    return sorted(name for name in found if name != MANIFEST_FILE)


def hash_files(directory: Path) -> dict[str, str]:
    """Computes the checksum of every file but the manifest.

    Args:
        directory: A release's folder.

    Returns:
        sha256 in hexadecimal by path, relative to the folder, with ``/`` and in order.

    Raises:
        ReleaseError: When it holds something that no release may hold.
    """
    names = listing(directory)
    wrong = _strangers(directory, names)
    if wrong:
        raise ReleaseError(
            f"{directory}: {'; '.join(wrong.values())}. A release is plain files in plain folders."
        )
    return {name: _plain_sha256(directory / name) for name in names}


def check_files(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Compares a release's folder with the checksums of its files.

    Args:
        directory: A release's folder.
        files: Checksums of the files by relative path, as the manifest has them.

    Returns:
        What is wrong, a sentence each; empty when the folder holds these files and nothing else.
    """
    try:
        present = set(listing(directory))
        reasons = [f"{name} is missing" for name in sorted(set(files) - present)]
        reasons += [f"{_shown(name)} is not listed in the manifest" for name in sorted(present - set(files))]
        strange = _strangers(directory, files)
    except ReleaseError as error:
        return [str(error)]
    reasons += strange.values()
    for name in sorted(present & set(files) - strange.keys()):
        try:
            if _plain_sha256(directory / name) != files[name]:
                reasons.append(f"{name} is damaged: its sha256 is not the manifest's")
        except OSError as error:
            reasons.append(f"{name} cannot be read: {error.strerror}")
    return reasons


def find_damage(directory: Path, *, manifest_sha256: str | None = None) -> list[str]:
    """Says what is wrong with the files of a release.

    Args:
        directory: A version folder.
        manifest_sha256: What the sha256 of its manifest must be; any if None.

    Returns:
        What is wrong, a sentence each; empty when every file is that of the manifest.
    """
    try:
        manifest = read_manifest(directory, manifest_sha256=manifest_sha256)
    except ReleaseError as error:
        return [str(error)]
    return check_files(directory, manifest["files"])


def check_release(directory: Path, *, manifest_sha256: str | None = None) -> dict[str, Any]:
    """Refuses a release that is not whole, before anything of it is used.

    Args:
        directory: A version folder.
        manifest_sha256: What the sha256 of its manifest must be; any if None.

    Returns:
        Its manifest.

    Raises:
        ReleaseError: When there is no manifest or it is another one, or a file is damaged, missing or not
            listed.
    """
    manifest = read_manifest(directory, manifest_sha256=manifest_sha256)
    wrong = check_files(directory, manifest["files"])
    if wrong:
        raise ReleaseError(f"{directory}: {'; '.join(wrong)}. Copy or export the release again.")
    return manifest


def check_servable(directory: Path, *, manifest_sha256: str | None = None) -> None:
    """Refuses a folder whose SavedModel is not wholly what was released.

    Args:
        directory: A version folder.
        manifest_sha256: What the sha256 of its manifest must be; any if None.

    Raises:
        ReleaseError: When it is no release or another one, was refused, has no SavedModel, or a file is
            damaged, missing or not listed.
    """
    manifest = check_release(directory, manifest_sha256=manifest_sha256)
    if manifest["release"]["verdict"] != "released":
        reasons = "; ".join(manifest["release"]["reasons"])
        raise ReleaseError(f"{directory} was refused ({reasons}); use a released version.")
    if "saved_model.pb" not in manifest["files"]:
        raise ReleaseError(f"{directory} has no SavedModel; export again with the variant 'saved_model'.")


def linked_files(directory: Path) -> list[str]:
    """Lists the files that have a second name somewhere, through which they can be changed.

    Args:
        directory: A release's folder.

    Returns:
        Paths relative to the folder, with ``/`` and in order.
    """
    entries = _entries(directory)
    return sorted(name for name, about in entries if stat.S_ISREG(about.st_mode) and about.st_nlink > 1)


def sha256(path: Path) -> str:
    """Computes the checksum of a file.

    Args:
        path: The file.

    Returns:
        sha256 in hexadecimal.
    """
    with path.open("rb") as file:
        return _digest(file)


def _plain_sha256(path: Path) -> str:
    with open_plain(path) as file:
        return _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _strangers(directory: Path, files: Mapping[str, str] | list[str]) -> dict[str, str]:
    """Finds what is neither a plain file nor a folder of these files: a sentence for each name."""
    parents = {str(parent) for name in files for parent in Path(name).parents}
    reasons = {}
    for name, about in sorted(_entries(directory), key=lambda entry: entry[0]):
        kind = next((what for matches, what in _KINDS if matches(about.st_mode)), None)
        if kind is not None:
            reasons[name] = f"{_shown(name)} is {kind} instead of a plain file inside the release"
        elif stat.S_ISDIR(about.st_mode) and name not in {*parents, *_MAY_BE_EMPTY}:
            reasons[name] = f"{_shown(name)}/ is a folder that no listed file is in"
        elif _shown(name) != name:
            reasons[name] = f"{_shown(name)} is not written in UTF-8, as names of files must be"
    return reasons


def _entries(directory: Path, inside: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Walks through a folder without following links; a folder that cannot be read may hide anything."""
    try:
        with os.scandir(directory / inside) as found:
            entries = [(f"{inside}{entry.name}", entry.stat(follow_symlinks=False)) for entry in found]
    except OSError as error:
        raise ReleaseError(f"{directory / inside} cannot be read: {error.strerror}") from error
    for name, about in entries:
        yield name, about
        if stat.S_ISDIR(about.st_mode):
            yield from _entries(directory, f"{name}/")


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
