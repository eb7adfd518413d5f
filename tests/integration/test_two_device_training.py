"""`train` on two devices learns what it learns on one: batches of uneven parts, the last of a single row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workplaces import make_workplace

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
    "task",
    [
        "sgd:29:7:1",
        pytest.param("sgd:40:8:1", marks=pytest.mark.slow),
        "adamw:29:7:1",
        "sgd:29:7:3",
        "distill:27:7:1",
    ],
)
def test_two_devices_learn_what_one_learns(tmp_path, tiny_vocab, task):
    (found,) = apart(tmp_path, tiny_vocab, task).values()
    assert found["curve"] <= 1e-3
    assert found["logits"] <= 1e-4
    if not task.startswith("adamw"):
        assert found["weights"] <= 1e-5


def test_a_workflow_on_two_virtual_devices_ends_in_a_release(tmp_path, tiny_vocab):
    workplace = make_workplace(tmp_path, tiny_vocab)
    command = [sys.executable, "-m", "tfapp", "run", str(workplace / "workflow.toml")]
    settings = ["hardware.virtual_devices=2", "export.variants=['float32']", "harden.objective='fgm'"]
    settings += ["train.learning_rate_scaling='linear'"]
    ended = subprocess.run(
        [*command, "--output", str(tmp_path), *(word for each in settings for word in ("--set", each))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "mirrored: the processor is split into 2 virtual devices; 2 devices share" in ended.stderr
    assert "learning rate of phase 'all': 0.006, scaled from 0.003 (linear in 2 devices)" in ended.stderr
    assert "Released: " in ended.stdout
