"""What `tfapp monitor` reads and shows, of runs in every state."""

import io
import json
import os
import time

import pytest
from click.testing import CliRunner
from rich.console import Console

from tfapp.commands.monitor import monitor
from tfapp.csv_text import csv_text
from tfapp.disk import held, is_held
from tfapp.errors import OutputError
from tfapp.watching import watch
from tfapp.watching_view import duration, sparkline, view

TOLD = {
    "state": "training",
    "phase": 2,
    "phases": 2,
    "train": "all",
    "epochs": 3,
    "steps": 2105,
    "epoch": 2,
    "step": 1300,
    "numbers": {"loss": 0.25, "accuracy": 0.9},
    "recent_losses": [0.9, 0.5, 0.3],
    "learning_rate": 5e-5,
    "rates": {"examples_per_second": 181.9, "tokens_per_second": 4602.0, "input_wait": 0.004},
    "seconds_left": 3725.0,
    "memory_bytes": 1_250_000_000,
    "gpus": [{"name": "GPU A", "memory_used": 2e9, "memory_total": 8e9, "utilization": 0.5}],
    "process": 77,
    "host": "here",
}
EPOCHS = [[1, "head", 1, 0.7, 0.6, 0.001], [1, "head", 2, 0.6, 0.5, 0.0005], [2, "all", 1, 0.4, 0.45, 5e-5]]


def make_run(folder, *, state="training", finished=False, **told):
    """A workflow's folder whose transfer has begun."""
    for name, done in (("prepare", True), ("transfer", finished)):
        (folder / name).mkdir(parents=True)
        (folder / name / "stage.json").write_text(json.dumps({"stage": name, "inputs": {}, "finished": done}))
    transfer = folder / "transfer"
    content = {**TOLD, "updated": time.time(), "state": state, **told}
    (transfer / "progress.json").write_text(json.dumps(content))
    header = ("phase", "train", "epoch", "loss", "val_loss", "learning_rate")
    (transfer / "history.csv").write_text(csv_text(header, EPOCHS))
    (transfer / "checkpoints").mkdir()
    (transfer / "checkpoints" / "checkpoint.npz").write_bytes(b"")
    return folder


def shown(folder):
    console = Console(file=io.StringIO(), width=120)
    console.print(view(watch(folder)))
    return console.file.getvalue()


def test_a_running_run_is_told_in_full(tmp_path):
    folder = make_run(tmp_path / "runs" / "tiny")
    with held(folder, cure="wait"):
        watched = watch(folder)
        text = shown(folder)
        of_stage = watch(folder / "transfer")
    assert (watched.state, watched.stage) == ("running", "transfer")
    assert of_stage.state == "running"  # the workflow holds the folder above
    for part in (
        "running",
        "prepare done, transfer begun",
        "2 of 2 (all)",
        "2 of 3, step 1,300 of 2,105",
        "loss 0.2500, accuracy 0.9000",
        "█▃▁ 0.3000",
        "181.9 examples/s, 4,602 tokens/s",
        "0.4% of the time",
        "1 h 2 min in this phase",
        "1.25 GB",
        "GPU A: 2.0 of 8.0 GB, 50% busy",
        "77 on here",
        "1 (head)",
    ):
        assert part in text
    assert "last checkpoint" in text


@pytest.mark.parametrize(
    ("told", "finished", "state"),
    [
        ("training", False, "killed"),
        ("finished", False, "killed"),
        ("stopped", False, "stopped"),
        ("failed", False, "failed"),
        ("finished", True, "finished"),
    ],
)
def test_a_run_that_nobody_holds_has_ended(tmp_path, told, finished, state):
    folder = make_run(tmp_path / "tiny", state=told, finished=finished, error="the loss is not finite")
    with held(folder, cure="wait"):
        pass
    assert watch(folder).state == state
    text = shown(folder)
    assert "time left" not in text
    assert ("the loss is not finite" in text) == (state == "failed")


def test_a_training_of_python_is_watched_by_its_run_dir(tmp_path):
    folder = make_run(tmp_path / "tiny", state="finished")
    (folder / "transfer").rename(tmp_path / "mine")
    (tmp_path / "mine" / "stage.json").unlink()
    assert watch(tmp_path / "mine").state == "finished"
    assert watch(tmp_path / "mine").stages == {}


def test_damaged_files_are_no_error(tmp_path):
    folder = make_run(tmp_path / "tiny")
    (folder / "transfer" / "progress.json").write_text('{"state": "trai')
    (folder / "transfer" / "history.csv").write_text("phase,epoch,loss\n1,1,nan\n2,")
    assert watch(folder).state == "killed"
    assert "nan" in shown(folder)


def test_without_a_run_those_that_there_are_are_told(tmp_path):
    make_run(tmp_path / "runs" / "tiny")
    make_run(tmp_path / "runs" / "other")
    for asked in (tmp_path / "runs" / "tnyi", tmp_path / "tiny", tmp_path / "runs"):
        with pytest.raises(OutputError, match=r"there is no run. In .*runs there are: other, tiny"):
            watch(asked)
    with pytest.raises(OutputError, match="`tfapp run` writes runs/<name>"):
        watch(tmp_path / "elsewhere" / "x")


def test_the_command_prints_once_where_there_is_no_terminal(tmp_path):
    folder = make_run(tmp_path / "tiny")
    with held(folder, cure="wait"):
        result = CliRunner().invoke(monitor, [str(folder)])
    assert result.exit_code == 0
    assert "2 of 3, step 1,300 of 2,105" in result.output
    result = CliRunner().invoke(monitor, [str(folder), "--once"])
    assert result.exit_code == 1
    assert "ended without finishing" in result.output


def test_a_lock_is_seen_without_being_taken(tmp_path):
    assert not is_held(tmp_path)
    with held(tmp_path, cure="wait"):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


def test_a_lock_is_seen_where_the_system_lists_none(tmp_path, monkeypatch):
    monkeypatch.setattr("tfapp.disk._LOCKS", tmp_path / "missing")
    with held(tmp_path, cure="wait"):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_lock_on_another_device_is_not_taken_for_this_one(tmp_path, monkeypatch):
    listed = tmp_path / "locks"
    monkeypatch.setattr("tfapp.disk._LOCKS", listed)
    with held(tmp_path, cure="wait"):
        inode = (tmp_path / ".lock").stat().st_ino
        listed.write_text(f"1: FLOCK  ADVISORY  WRITE 9 ff:fe:{inode} 0 EOF\n")
        assert is_held(tmp_path)  # as on btrfs, which lists another device than a file has
    assert not is_held(tmp_path)


def test_sparklines_and_times():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0, float("nan")]) == "▁▁"
    assert sparkline([]) == ""
    assert [duration(seconds) for seconds in (0.2, 59.6, 3605, 90061)] == [
        "0 s",
        "1 min",
        "1 h 5 s",
        "1 d 1 h",
    ]
