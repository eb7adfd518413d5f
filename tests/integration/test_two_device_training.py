"""`train` on two devices learns what it learns on one: batches of uneven parts, the last of a single row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).with_name("two_device_training.py")


def apart(tmp_path, vocabulary, *tasks):
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary))
    ended = subprocess.run(
        [sys.executable, str(TRAINING), str(tmp_path / "vocabulary.json"), *tasks],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


# 29 rows in batches of 7 leave one for the last step, and nothing for the second device.
@pytest.mark.parametrize(
    "task", ["sgd:29:7:1", pytest.param("sgd:40:8:1", marks=pytest.mark.slow), "adamw:29:7:1", "sgd:29:7:3"]
)
def test_two_devices_learn_what_one_learns(tmp_path, tiny_vocab, task):
    (found,) = apart(tmp_path, tiny_vocab, task).values()
    assert found["curve"] <= 1e-3
    assert found["logits"] <= 1e-4
    if task.startswith("sgd"):
        assert found["weights"] <= 1e-5
