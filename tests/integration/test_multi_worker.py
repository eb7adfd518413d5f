"""Two processes under MultiWorkerMirroredStrategy on loopback: what they learn, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from workplaces import make_workplace

from tfapp.launching import environments

SCRIPT = Path(__file__).with_name("multi_worker_training.py")
# 29 rows in batches of 7 leave one for the last step, and nothing for the second worker.
TASKS = ["train:sgd:29:7", "step:image:trades:sgd"]
FURTHER = ["train:adamw:29:7", "step:normalised:adversarial:adamw"]
LONGEST = 400


def start(variables, *arguments, output):
    with output.open("w") as log:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **variables,
            },
        )


@pytest.fixture
def together(tmp_path, tiny_vocab):
    """Starts two workers, and ends what is left of them."""
    (tmp_path / "vocabulary.json").write_text(json.dumps(tiny_vocab))
    started = []

    def make(*arguments):
        logs = [tmp_path / f"{index}.log" for index in range(2)]
        workers = [
            start(variables, tmp_path / "vocabulary.json", *arguments, output=log)
            for variables, log in zip(environments(2), logs, strict=True)
        ]
        started.extend(workers)
        return workers, logs

    yield make
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "tasks", [TASKS, pytest.param(FURTHER, marks=pytest.mark.slow)], ids=["sgd", "adamw"]
)
def test_two_workers_learn_what_one_process_learns(tmp_path, together, tasks):
    """They also say so where they are asked for different things."""
    workers, logs = together("learn", tmp_path / "two.npz", *tasks, "refused")
    alone = start(
        {}, tmp_path / "vocabulary.json", "learn", tmp_path / "one.npz", *tasks, output=tmp_path / "one.log"
    )
    for process, log in zip((*workers, alone), (*logs, tmp_path / "one.log"), strict=True):
        assert process.wait(LONGEST) == 0, log.read_text()[-3000:]
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    assert set(one) == set(two)
    for name in one:
        task, _, part = name.rpartition("/")
        apart = np.abs(one[name] - two[name]).max(initial=0.0)
        if part == "curve":
            assert apart <= 1e-3, name
        elif part == "logits":
            assert apart <= 1e-4, name
        elif "sgd" in task:
            assert apart <= 1e-5, name
    chief, other = (log.read_text() for log in logs)
    assert "refused: workers [1] were asked for something else than the chief" in chief
    assert "refused: worker 1 was asked for something else than the chief; what differs: settings" in other


@pytest.mark.slow
def test_all_go_by_what_the_chief_has_measured_and_stop_together(together):
    """The third epoch of four is ill to the chief alone; then a callback of the other one alone stops."""
    workers, logs = together("probed")
    assert [process.wait(LONGEST) for process in workers] == [0, 0], logs[0].read_text()[-3000:]
    said = [json.loads(log.read_text().splitlines()[-1]) for log in logs]
    assert said[0] == said[1]
    assert said[0][:3] == [[0.8, 0.8, 0.05], 1, 1]


@pytest.mark.slow
def test_keras_alone_still_fails_on_several_workers(together):
    """Once this fails, `keras_multi_worker` has done its work and can go."""
    workers, logs = together("keras")
    assert [process.wait(LONGEST) for process in workers] == [1, 1]
    assert "ValueError" in logs[0].read_text()


def until(condition, what):
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_one_of_two_is_killed_and_all_end_as_if_none_had_been(tmp_path, together, seed):
    draw = np.random.default_rng(seed)
    workers, logs = together("kept", tmp_path / "unbroken")
    assert [process.wait(LONGEST) for process in workers] == [0, 0], logs[0].read_text()[-3000:]
    unbroken = logs[0].read_text().splitlines()[-1]
    assert logs[1].read_text().splitlines()[-1] == unbroken

    folder = tmp_path / "broken"
    workers, logs = together("kept", folder)
    until((folder / "worker-0" / "checkpoints" / "checkpoint.npz").exists, "no checkpoint is written")
    time.sleep(draw.uniform(0.0, 3.0))
    killed = int(draw.integers(2))
    workers[killed].kill()
    # The chief's end takes the others with it; of another worker's end the chief tells.
    assert workers[1 - killed].wait(LONGEST) != 0
    if killed == 1:
        assert "a worker has ended" in logs[0].read_text()
    assert not (folder / "worker-1" / "checkpoints").exists()

    workers, logs = together("kept", folder)
    assert [process.wait(LONGEST) for process in workers] == [0, 0], logs[0].read_text()[-3000:]
    assert "going on after" in logs[0].read_text()
    assert logs[0].read_text().splitlines()[-1] == unbroken


def test_a_worker_is_killed_all_start_again_and_a_signal_to_one_ends_all_after_the_same_step(
    tmp_path, together
):
    workers, logs = together("kept", tmp_path / "run")
    until((tmp_path / "run" / "worker-0" / "checkpoints" / "checkpoint.npz").exists, "no checkpoint")
    workers[1].kill()
    assert workers[0].wait(LONGEST) != 0
    assert "a worker has ended" in logs[0].read_text()
    assert not (tmp_path / "run" / "worker-1" / "checkpoints").exists()

    workers, logs = together("kept", tmp_path / "run")
    told = tmp_path / "run" / "worker-0" / "progress.json"

    def trains():
        progress = json.loads(told.read_text())
        return (progress.get("process"), progress["state"]) == (workers[0].pid, "training")

    until(trains, "no step is done")
    assert "going on after" in logs[0].read_text()
    workers[1].send_signal(signal.SIGTERM)
    statuses = [process.wait(LONGEST) for process in workers]
    # The script has no handler of its own: the worker that got the signal dies by it, the other as told.
    assert statuses == [3, -signal.SIGTERM], logs[0].read_text()[-2000:]


def test_a_workflow_in_two_workers_ends_in_one_release(tmp_path, tiny_vocab):
    workplace = make_workplace(tmp_path, tiny_vocab)
    output = tmp_path / "output"
    command = [sys.executable, "-m", "tfapp", "launch", str(workplace / "workflow.toml")]
    ended = subprocess.run(
        [*command, "--output", str(output), "--set", "export.variants=['float32']"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Released: " in ended.stdout
    assert "[worker 1] This worker has done its part" in ended.stderr
    assert sorted(path.name for path in (output / "runs").iterdir()) == ["tiny", "tiny.worker-1"]
    assert (output / "saved_models" / "tiny" / "1" / "manifest.json").exists()
