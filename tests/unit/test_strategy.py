"""How the devices to train on are chosen, and what is said where they are not there."""

import json
import subprocess
import sys

import pytest

from tfapp.errors import ConfigError
from tfapp.launching import environments, launch
from tfapp.training.strategy import choose, make_strategy, workers_of


def config(workers=2, *, kind="worker", index=0, **others):
    cluster = {"worker": [f"host-{number}:2222" for number in range(workers)], **others}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize(
    ("environment", "gpus", "virtual_devices", "expected"),
    [
        ({}, 0, None, ("one_device", "there is no GPU, no TF_CONFIG, no TPU_NAME")),
        ({}, 1, None, ("one_device", "there is one GPU, no TF_CONFIG, no TPU_NAME")),
        ({}, 4, None, ("mirrored", "there are 4 GPUs")),
        ({}, 0, 2, ("mirrored", "the processor is split into 2 virtual devices")),
        (config(1), 0, None, ("one_device", "there is no GPU, no TF_CONFIG, no TPU_NAME")),
        (config(3), 4, None, ("multi_worker", "TF_CONFIG names 3 workers")),
        (config(1, chief=["a:1"]), 0, None, ("multi_worker", "TF_CONFIG names 2 workers")),
        ({"TPU_NAME": "local", **config(3)}, 0, None, ("tpu", "TPU_NAME is 'local'")),
    ],
)
def test_auto_takes_the_largest_that_there_is_and_says_why(environment, gpus, virtual_devices, expected):
    found = choose("auto", environment, gpus=gpus, virtual_devices=virtual_devices)
    assert found == expected


@pytest.mark.parametrize(
    ("strategy", "environment", "virtual_devices", "words"),
    [
        ("mirrored", {}, None, "needs two GPUs or more, and TensorFlow sees 0"),
        ("tpu", {}, None, "needs the variable TPU_NAME"),
        ("multi_worker", {}, None, "needs the variable TF_CONFIG with two workers or more"),
        ("multi_worker", config(1), None, "needs the variable TF_CONFIG with two workers or more"),
        ("one_device", {}, 2, "virtual_devices goes with strategy 'mirrored', not with 'one_device'"),
        ("mirrored", {}, 1, "virtual_devices = 1: it must be 2 or more"),
        ("auto", {"TF_CONFIG": "{"}, None, "TF_CONFIG cannot be read"),
        ("auto", {"TF_CONFIG": "[]"}, None, "TF_CONFIG cannot be read"),
        ("auto", config(ps=["a:1"]), None, "names tasks ['ps']: only 'chief' and 'worker'"),
        ("auto", config(index=2), None, "says that this is worker 2, which its cluster does not have"),
    ],
)
def test_what_is_missing_is_named_with_the_cure(strategy, environment, virtual_devices, words):
    with pytest.raises(ConfigError) as refused:
        choose(strategy, environment, gpus=0, virtual_devices=virtual_devices)
    assert words in str(refused.value)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ConfigError, match=r"unknown strategy 'mirror'.*'mirrored'"):
        make_strategy("mirror")


def test_virtual_devices_after_tensorflow_has_computed_are_refused():
    code = (
        "import tensorflow as tf; tf.constant(1.0) + 1.0\n"
        "from tfapp.training.strategy import make_strategy\n"
        "make_strategy(virtual_devices=2)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: virtual_devices comes too late" in ended.stderr


def test_each_worker_learns_who_it_is_and_what_is_its(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    made = environments(2)
    configs = [json.loads(variables["TF_CONFIG"]) for variables in made]
    assert [each["task"] for each in configs] == [{"type": "worker", "index": index} for index in range(2)]
    assert configs[0]["cluster"] == configs[1]["cluster"]
    assert len(set(configs[0]["cluster"]["worker"])) == 2
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in made] == ["0,1", "2,3"]
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in environments(3)] == ["0", "1", "2"]
    with pytest.raises(ConfigError, match="4 GPUs are too few for 5 workers"):
        environments(5)
    assert workers_of(made[1]) == 2


def test_a_worker_launches_no_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config()["TF_CONFIG"])
    with pytest.raises(ConfigError, match="already one of several workers"):
        launch(["run", "workflow.toml"], workers=2)
