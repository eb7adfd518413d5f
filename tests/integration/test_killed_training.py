"""Kill -9 at random moments of training: resumed each time, it ends with the weights of an unbroken run."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).with_name("killed_training.py")
KILLED = -9


@pytest.fixture
def ask(tmp_path, tiny_vocab):
    """Runs trials in the process that forks them."""
    (tmp_path / "vocabulary.json").write_text(json.dumps(tiny_vocab))
    with (
        (tmp_path / "stderr.txt").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, str(TRAINING), str(tmp_path / "vocabulary.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
        ) as process,
    ):

        def asked(run_dir, seconds=None):
            process.stdin.write(json.dumps({"run_dir": str(run_dir), "seconds": seconds}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, errors.seek(0) or errors.read()[-3000:]
            return json.loads(answer)

        yield asked
        process.stdin.close()
        assert process.wait(60) == 0


def kill_many(ask, tmp_path, kills):
    """Kills runs at random moments, each resumed until it ends; compares every end with the unbroken one."""
    unbroken, draw = ask(tmp_path / "unbroken"), random.Random(3)
    assert unbroken["status"] == 0
    done, ends, number = 0, 0, 0
    while done < kills or not ends:
        # Half of an unbroken run's time at most, so that a run is killed several times before it ends.
        seconds = draw.uniform(0.2, 0.5) * unbroken["seconds"] if done < kills else None
        answer = ask(tmp_path / f"run-{number}", seconds)
        if answer["status"] == KILLED:
            done += 1
            continue
        assert answer["status"] == 0
        assert answer["digest"] == unbroken["digest"]
        ends, number = ends + 1, number + 1
    # The last run may have been killed last.
    if (tmp_path / f"run-{number}").exists():
        assert ask(tmp_path / f"run-{number}")["digest"] == unbroken["digest"]
    return ends


def test_a_run_that_is_killed_ends_with_the_same_weights(ask, tmp_path):
    assert kill_many(ask, tmp_path, 3) >= 1


@pytest.mark.slow
def test_runs_that_are_killed_50_times_end_with_the_same_weights(ask, tmp_path):
    assert kill_many(ask, tmp_path, 50) >= 3
