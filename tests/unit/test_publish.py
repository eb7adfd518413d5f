import contextlib
import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tfapp.data.image_store import ArrayImages
from tfapp.errors import OutputError, ReleaseRefused
from tfapp.release.probe import RawFeatures
from tfapp.release.publish import own_files, publish, refuse, staging
from tfapp.release.versions import check_name

LEAVE_STAGING = """
import os, sys
from pathlib import Path
from tfapp.release.publish import staging
with staging(Path(sys.argv[1])) as stage:
    (stage.release / "half").write_text("written")
    os._exit(9)
"""


def release(directory, text="content"):
    with staging(directory) as stage:
        (stage.release / "file").write_text(text)
        path, version = publish(
            stage, lambda number: (stage.release / "manifest.json").write_text(f"{number} {text}")
        )
    assert path == directory / str(version)
    return version


@pytest.mark.parametrize("name", ["reviews", "a", "0", "bbc-news_2", "x" * 64])
def test_names_that_are_safe(tmp_path, name):
    assert check_name(tmp_path / name) == name


@pytest.mark.parametrize("name", ["..", "Reviews", "a b", "-a", "_a", "ümlaut", "x" * 65, "a.b", "a\n"])
def test_names_that_are_not_safe(tmp_path, name):
    with pytest.raises(OutputError, match="release name"):
        check_name(tmp_path / name)


def test_versions_count_up_and_skip_what_is_there(tmp_path):
    directory = tmp_path / "reviews"
    assert release(directory) == 1
    (directory / "7").mkdir()
    (directory / "refused-20260101T000000Z").mkdir()
    assert release(directory) == 8
    assert (directory / "8" / "manifest.json").read_text() == "8 content"
    assert sorted(path.name for path in directory.iterdir()) == ["1", "7", "8", "refused-20260101T000000Z"]


def test_concurrent_exports_get_different_versions_whole(tmp_path):
    directory = tmp_path / "reviews"
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda index: release(directory, f"from {index}"), range(24)))
    assert sorted(versions) == list(range(1, 25))
    for index, version in enumerate(versions):
        assert (directory / str(version) / "manifest.json").read_text() == f"{version} from {index}"
        assert (directory / str(version) / "file").read_text() == f"from {index}"


PUBLISH = """
import sys
from pathlib import Path
from tfapp.release.publish import publish, staging
for number in range(8):
    with staging(Path(sys.argv[1])) as stage:
        text = f"{sys.argv[2]}-{number}"
        (stage.release / "folder").mkdir()
        (stage.release / "folder" / "file").write_text(text)
        _, version = publish(
            stage, lambda number: (stage.release / "manifest.json").write_text(f"{number} {text}")
        )
        print(version, text)
"""


def test_concurrent_processes_get_different_versions_whole(tmp_path):
    directory = tmp_path / "reviews"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(directory), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(6)
    ]
    said = [line for process in processes for line in process.communicate(timeout=120)[0].splitlines()]
    assert sorted(int(line.split()[0]) for line in said) == list(range(1, 49))
    assert len({line.split()[1] for line in said}) == 48
    for line in said:
        version, text = line.split()
        assert (directory / version / "manifest.json").read_text() == line
        assert (directory / version / "folder" / "file").read_text() == text
    assert len(list(directory.iterdir())) == 48


def test_everything_is_on_the_disk_before_the_version_has_its_name(tmp_path, monkeypatch):
    from tfapp import disk
    from tfapp.release import publish as module

    directory, done = tmp_path / "saved_models" / "reviews", []
    real = disk.rename_new

    def sync(path):
        done.append(str(path.relative_to(tmp_path)))

    def rename(source, target):
        done.append("rename")
        return real(source, target)

    monkeypatch.setattr(module, "sync", sync)
    monkeypatch.setattr(module, "rename_new", rename)
    with staging(directory) as stage:
        folder = stage.release.relative_to(tmp_path)
        (stage.release / "variables").mkdir()
        (stage.release / "variables" / "data").write_text("numbers")
        publish(stage, lambda number: (stage.release / "manifest.json").write_text("{}"))
    before, after = done[: done.index("rename")], done[done.index("rename") + 1 :]
    # The new folders' names, the files, the folders that name them; then the name of the version.
    assert {".", "saved_models"} <= set(before)
    inside = [path for path in before if path.startswith(str(folder))]
    assert set(inside) == {
        str(folder / path) for path in ("", "variables", "variables/data", "manifest.json")
    }
    assert inside[-1] == str(folder)
    assert after == ["saved_models/reviews", str(folder.parent)]


def test_a_file_with_a_second_name_is_copied_so_that_nobody_changes_it_later(tmp_path):
    outside = tmp_path / "cache"
    outside.write_text("weights")
    outside.chmod(0o640)
    with staging(tmp_path / "reviews") as stage:
        os.link(outside, stage.release / "weights")
        own_files(stage)
        path, _ = publish(stage, lambda number: None)
    outside.write_text("others!")
    assert (path / "weights").read_text() == "weights"
    assert (path / "weights").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("system_call", [True, False])
def test_no_folder_is_replaced_by_a_rename(tmp_path, monkeypatch, system_call):
    from tfapp import disk

    if not system_call:
        monkeypatch.setattr(disk.ctypes, "CDLL", lambda *arguments, **options: SimpleNamespace())
    (tmp_path / "new").mkdir()
    (tmp_path / "taken").mkdir()
    assert not disk.rename_new(tmp_path / "new", tmp_path / "taken")
    assert disk.rename_new(tmp_path / "new", tmp_path / "free")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free", "taken"]
    with pytest.raises(FileNotFoundError):
        disk.rename_new(tmp_path / "new", tmp_path / "other")


def test_exports_that_fail_do_not_disturb_those_beside_them(tmp_path):
    directory = tmp_path / "reviews"

    def attempt(index):
        with contextlib.suppress(RuntimeError), staging(directory) as stage:
            (stage.release / "file").write_text("half")
            raise RuntimeError("boom")
        return index

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, range(200))) == list(range(200))
    assert not directory.exists() or not list(directory.iterdir())


def test_a_version_taken_at_the_last_moment_is_not_overwritten(tmp_path):
    directory = tmp_path / "reviews"
    taken = []

    def finish(number):
        if not taken:
            (directory / str(number)).mkdir()
            taken.append(number)

    with staging(directory) as stage:
        (stage.release / "file").write_text("mine")
        path, version = publish(stage, finish)
    assert (taken, version) == ([1], 2)
    assert list((directory / "1").iterdir()) == []
    assert (path / "file").read_text() == "mine"


def test_a_failure_leaves_nothing_behind(tmp_path):
    def fail():
        with staging(tmp_path / "reviews") as stage:
            (stage.release / "file").write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_earlier_versions_alone(tmp_path):
    directory = tmp_path / "reviews"
    release(directory)
    with pytest.raises(RuntimeError, match="boom"), staging(directory):
        raise RuntimeError("boom")
    assert [path.name for path in directory.iterdir()] == ["1"]


def test_a_dead_process_leaves_a_staging_folder_that_the_next_export_removes(tmp_path):
    directory = tmp_path / "reviews"
    process = subprocess.run([sys.executable, "-c", LEAVE_STAGING, str(directory)], check=False, timeout=120)
    assert process.returncode == 9
    assert [path.name.startswith(".staging-") for path in directory.iterdir()] == [True]
    assert release(directory) == 1
    assert [path.name for path in directory.iterdir()] == ["1"]


def test_a_living_export_keeps_its_staging_folder(tmp_path):
    directory = tmp_path / "reviews"
    with staging(directory) as first:
        (first.release / "file").write_text("first")
        assert release(directory, "second") == 1
        _, version = publish(first, lambda number: None)
    assert version == 2
    assert (directory / "2" / "file").read_text() == "first"


def test_refused_folders_get_different_names_that_no_server_scans(tmp_path):
    targets = []
    for _ in range(3):
        with staging(tmp_path / "reviews") as stage:
            (stage.release / "manifest.json").write_text("{}")
            targets.append(refuse(stage))
    assert len(set(targets)) == 3
    assert all(path.name.startswith("refused-") and (path / "manifest.json").exists() for path in targets)
    assert not [path for path in (tmp_path / "reviews").iterdir() if path.name.isdecimal()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path, code):
    with pytest.raises(OutputError, match="MB are free"), staging(tmp_path / "reviews"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_output_error(tmp_path):
    (tmp_path / "saved_models").write_text("a file")
    with (
        pytest.raises(OutputError, match="cannot be written"),
        staging(tmp_path / "saved_models" / "reviews"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"), staging(tmp_path / "reviews"):
        pass


def test_too_little_space_is_noticed_before_the_work(tmp_path, monkeypatch):
    from tfapp.release.artifacts import check_space

    def model(tensor, **preprocessor):
        return SimpleNamespace(
            count_params=lambda: 1_000_000,
            num_classes=100,
            input={"input": tensor},
            preprocessor=SimpleNamespace(**preprocessor),
        )

    photos = ArrayImages(np.zeros((1, 1000, 1000, 3), np.uint8), np.zeros(10, np.int64))
    pixels = SimpleNamespace(shape=(None, 200, 100, 3), dtype="float32")
    images = model(pixels, tensor_dtypes={"input": "uint8"}), RawFeatures(photos)
    ids = SimpleNamespace(shape=(None, None), dtype="int32")
    texts = model(ids, tensor_dtypes={}, max_length=256), RawFeatures(("zwölf",) * 1000)
    assert images[1].total_bytes == sum(map(len, photos))
    assert texts[1].total_bytes == 6000
    variants = ("saved_model", "keras")
    # The weights' 48 MB; photographs of 30 MB, pixels of 0.6 MB, 9 MB of base64; 1 MB of ids, 3.2 of answers.
    for (asked, features), golden, needed in ((images, 6_750_000, 88), (texts, 0, 52)):
        check_space(tmp_path, asked, variants, features, golden=[b"-" * golden])
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
            with pytest.raises(OutputError, match=f"10 MB are free and about {needed} MB are needed"):
                check_space(tmp_path, asked, variants, features, golden=[b"-" * golden])


def test_a_disk_that_a_library_says_is_full_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="MB are free"), staging(tmp_path / "reviews"):
        raise RuntimeError("HDF5: No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "weights.h5"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("a bug"),
        ReleaseRefused(["float32: OSError: No space left on device"], Path()),
    ],
)
def test_errors_that_are_not_of_writing_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, staging(tmp_path / "reviews"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["saved_model", "keras", "text"])
def test_what_was_half_written_is_removed(tmp_path, monkeypatch, variant):
    from tfapp.release import artifacts

    def fail(model, directory, **options):
        for part in artifacts._parts(directory, variant):
            (part / "deep" if part.suffix == "" else part.parent).mkdir(parents=True, exist_ok=True)
            (part / "deep" / "file" if part.suffix == "" else part).write_bytes(b"half")
        raise ValueError("no kernel")

    monkeypatch.setattr(artifacts, "EXPORTERS", dict.fromkeys(("saved_model", "keras", "tflite"), fail))
    (tmp_path / "golden.json").write_text("stays")
    reason = artifacts.write_artifact(None, variant, tmp_path, tmp_path / "scratch")
    assert reason == "cannot be made from this model: ValueError: no kernel"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["golden.json"]
    assert artifacts.artifact_bytes(tmp_path, variant) == 0


def test_a_disk_that_fills_while_an_artifact_is_written_is_no_fault_of_the_model(tmp_path, monkeypatch):
    from tfapp.release import artifacts

    def fail(model, directory):
        raise RuntimeError("Failed to write: No space left on device")

    monkeypatch.setattr(artifacts, "EXPORTERS", {"saved_model": fail})
    with (
        pytest.raises(OutputError, match="MB are free"),
        staging(tmp_path / "reviews") as stage,
    ):
        artifacts.write_artifact(None, "saved_model", stage.release, stage.scratch)
