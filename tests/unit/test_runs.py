"""The run folder: which stages are skipped, continued or done again, and who may write."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys

import pytest

from tfapp.errors import AssetError, OutputError
from tfapp.runs import open_run, write_json, writing_to


def finish_stage(directory, inputs, content="x"):
    with open_run(directory) as run:
        stage = run.stage("prepare", inputs)
        (stage.directory / "file").write_text(content)
        stage.finish({"rows": 3}, outputs=["file"])


def test_a_finished_stage_with_the_same_inputs_is_skipped(tmp_path):
    finish_stage(tmp_path, {"seed": 1})
    with open_run(tmp_path) as run:
        stage = run.stage("prepare", {"seed": 1})
        assert stage.finished
        assert stage.result == {"rows": 3}
        assert run.skipped == ["prepare"]


def test_other_inputs_empty_the_stage(tmp_path):
    finish_stage(tmp_path, {"seed": 1})
    with open_run(tmp_path) as run:
        stage = run.stage("prepare", {"seed": 2})
        assert not stage.finished
        assert not stage.resumes
        assert not (stage.directory / "file").exists()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"seed": 1, "train": {"loss": "focal", "batch_size": 16}},
            "changed since the earlier run: train.batch_size",
        ),
        ({"seed": 2, "train": {"loss": "focal", "batch_size": 32}}, "changed since the earlier run: seed"),
        (
            {"train": {"loss": "focal", "batch_size": 32}, "new": None},
            "changed since the earlier run: seed, new",
        ),
    ],
)
def test_what_changed_is_said_when_files_are_removed(tmp_path, caplog, inputs, said):
    first = {"seed": 1, "train": {"loss": "focal", "batch_size": 32}}
    with caplog.at_level(logging.INFO, logger="tfapp"):
        finish_stage(tmp_path, first)
        with open_run(tmp_path) as run:
            assert run.stage("prepare", first).finished
        assert caplog.messages == []
        with open_run(tmp_path) as run:
            run.stage("prepare", inputs)
    assert caplog.messages == [f"prepare: {said}; its earlier files are removed"]


def test_another_version_of_tfapp_empties_the_stage(tmp_path, monkeypatch):
    finish_stage(tmp_path, {"seed": 1})
    monkeypatch.setattr("tfapp.runs.__version__", "99.0")
    with open_run(tmp_path) as run:
        assert not run.stage("prepare", {"seed": 1}).finished


def test_an_unfinished_stage_keeps_its_files_and_resumes(tmp_path):
    with open_run(tmp_path) as run:
        stage = run.stage("transfer", {"seed": 1})
        assert not stage.resumes
        (stage.directory / "checkpoint").write_text("half")
    with open_run(tmp_path) as run:
        stage = run.stage("transfer", {"seed": 1})
        assert stage.resumes
        assert not stage.finished
        assert (stage.directory / "checkpoint").read_text() == "half"
    with open_run(tmp_path) as run:
        assert not run.stage("transfer", {"seed": 2}).resumes
        assert not (tmp_path / "transfer" / "checkpoint").exists()


def test_a_stage_whose_output_was_deleted_runs_again(tmp_path):
    finish_stage(tmp_path, {"seed": 1})
    (tmp_path / "prepare" / "file").unlink()
    with open_run(tmp_path) as run:
        assert not run.stage("prepare", {"seed": 1}).finished


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_damaged_record_means_that_the_stage_runs_again(tmp_path, content):
    finish_stage(tmp_path, {"seed": 1})
    (tmp_path / "prepare" / "stage.json").write_text(content)
    with open_run(tmp_path) as run:
        assert not run.stage("prepare", {"seed": 1}).finished


def test_fresh_removes_everything_but_the_lock(tmp_path):
    finish_stage(tmp_path, {"seed": 1})
    (tmp_path / "log").write_text("x")
    with open_run(tmp_path, fresh=True):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_second_run_of_the_same_name_is_refused_while_the_first_lives(tmp_path):
    code = (
        "import sys; from tfapp.runs import open_run\nwith open_run(__import__('pathlib').Path(sys.argv[1])):"
    )
    code += " print('locked', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(OutputError, match=f"process {holder.pid}"), open_run(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with open_run(tmp_path) as run:  # the lock of a dead process holds nobody up
        assert run.directory == tmp_path


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "stage.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["stage.json"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError("Can't write data (error message = 'No space left on device')"), "the disk is full"),
        (RuntimeError("RESOURCE_EXHAUSTED: events; No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/runs"), "/x/runs: cannot be written"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: cannot be written"),
    ],
)
def test_what_cannot_be_written_becomes_an_output_error(tmp_path, error, expected):
    with pytest.raises(OutputError, match=expected), writing_to(tmp_path):
        raise error


def test_an_error_with_a_cure_of_its_own_keeps_it(tmp_path):
    error = AssetError("cannot write into the cache: No space left on device; set TFAPP_CACHE")
    with pytest.raises(AssetError, match="set TFAPP_CACHE"), writing_to(tmp_path):
        raise error


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(KeyError), writing_to(tmp_path):
        raise KeyError("x")


def test_a_file_in_the_way_of_the_run_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match="runs"), open_run(tmp_path / "runs" / "x"):
        pass
