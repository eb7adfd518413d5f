"""Runs as they are seen: on their board, in their history, and from another process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import Stopped, tiny_text_classifier
from killed_training import CLASSES, split
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfapp.data.text import TextData
from tfapp.training import Phase, train
from tfapp.training.board import BoardWriters
from tfapp.watching import watch

TRAINING = Path(__file__).with_name("watched_training.py")
PHASES = [Phase("head", 1, 0.02), Phase("head", 2, 0.01)]
STEPS = 5  # of 34 rows in batches of 8


@pytest.fixture(scope="module")
def data():
    return TextData(split("train", 34, 1), split("validation", 9, 2), split("test", 4, 3), CLASSES, None, 5)


@pytest.fixture
def run(tiny_vocab, data):
    def run_with(**options):
        model = tiny_text_classifier(tiny_vocab, CLASSES)
        options = {"phases": PHASES, "batch_size": 8, "precision": "float32", "verbose": False, **options}
        return train(model, data, **options)

    return run_with


def series(directory, part):
    """Steps and values of each tag; files of one second are read in the order of their names."""
    events = EventAccumulator(
        str(directory / "tensorboard" / part), size_guidance={"tensors": 0}, purge_orphaned_data=False
    ).Reload()
    return {
        tag: sorted(
            ((event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)),
            key=lambda point: point[0],
        )
        for tag in events.Tags()["tensors"]
    }


class Look(keras.callbacks.Callback):
    """Keeps what the steps of the phases have counted, and stops where it is told."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop, self.begun, self.meters = stop, 0, []

    def on_train_begin(self, logs=None):
        if self.model.meter not in self.meters:
            self.meters.append(self.model.meter)

    def on_epoch_begin(self, epoch, logs=None):
        self.begun += 1

    def on_train_batch_end(self, batch, logs=None):
        if self.stop == (self.begun, batch):
            raise Stopped


def test_a_resumed_run_goes_on_in_the_same_board(run, tmp_path):
    board = {"every": 1, "histograms": True, "predictions": 4}
    options = {"tensorboard": board, "checkpoint_steps": 1}
    history = run(run_dir=tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        run(run_dir=tmp_path / "cut", callbacks=[Look(stop=(2, 2))], **options)
    stopped = watch(tmp_path / "cut")
    assert (stopped.state, stopped.progress["error"]) == ("failed", "Stopped()")
    writers = BoardWriters(tmp_path / "cut" / "tensorboard")
    for step in (STEPS + 4, STEPS + 5):  # what a killed run would have written after its checkpoint
        with writers.at("train", step):
            tf.summary.scalar("step/loss", 99.0)
    writers.close()
    run(run_dir=tmp_path / "cut", **options)

    for part in ("train", "validation"):
        whole, cut = (series(tmp_path / name, part) for name in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        for tag, points in whole.items():
            steps = [step for step, _ in points]
            assert len(steps) == len(set(steps))
            assert [step for step, _ in cut[tag]] == steps, tag
            if tag.startswith(("step/", "loss", "accuracy", "weights/")):
                for (_, one), (_, other) in zip(points, cut[tag], strict=True):
                    np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4, err_msg=tag)
    train_part = series(tmp_path / "whole", "train")
    ends = [STEPS, 2 * STEPS, 3 * STEPS]
    assert [step for step, _ in train_part["loss"]] == ends
    assert [float(value) for _, value in train_part["loss"]] == pytest.approx(
        [row["loss"] for row in history.epochs]
    )
    assert [step for step, _ in train_part["step/loss"]] == list(range(1, 3 * STEPS + 1))
    steps = np.array([float(value) for _, value in train_part["step/loss"]]).reshape(3, STEPS)
    assert steps @ [8, 8, 8, 8, 2] / 34 == pytest.approx([row["loss"] for row in history.epochs], rel=1e-4)
    assert len([tag for tag in train_part if tag.startswith("weights/")]) == 2


def test_settings_and_final_metrics_are_written_for_hparams(run, tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    history = run(run_dir=tmp_path, phases=[Phase("head", 2, 0.02)])
    run(run_dir=tmp_path, phases=[Phase("head", 2, 0.02)])  # finds itself complete
    events = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=False).Reload()

    def plugin_data(tag):
        return HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)

    given = plugin_data("_hparams_/session_start_info").session_start_info.hparams
    assert given["batch_size"].number_value == 8
    assert given["objective"].string_value == "standard"
    assert given["phases"].string_value == '[["head", 2, 0.02]]'
    assert plugin_data("_hparams_/session_end_info").session_end_info.status == 1
    final = series(tmp_path, "")
    best = max(history.epochs, key=lambda row: row["val_accuracy"])
    ((step, value),) = final["final/val_loss"]
    assert (step, float(value)) == (2 * STEPS, pytest.approx(best["val_loss"]))


def test_steps_are_profiled_where_that_is_asked_for(run, tmp_path):
    run(run_dir=tmp_path, phases=PHASES[:1], tensorboard={"profile_steps": (2, 3)})
    assert list((tmp_path / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))


def test_without_a_board_none_is_written(run, tmp_path):
    run(run_dir=tmp_path, phases=PHASES[:1], tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()
    assert watch(tmp_path).state == "finished"


@pytest.mark.parametrize("fused", [pytest.param(True, marks=pytest.mark.slow), False])
def test_steps_count_rows_tokens_and_what_they_wait_for(run, data, tmp_path, monkeypatch, fused):
    from tfapp.training import run as training_run

    pause, batches = 0.02, training_run.phase_batches

    def late(*arguments, **options):
        def wait(*batch):
            with tf.control_dependencies([tf.py_function(lambda: time.sleep(pause), [], [])]):
                return tf.nest.map_structure(tf.identity, batch)

        return batches(*arguments, **options).map(wait)

    monkeypatch.setattr(training_run, "phase_batches", late)
    look = Look()
    history = run(
        run_dir=tmp_path,
        phases=[Phase("all", 3, 0.01)],
        callbacks=[look],
        checkpoint_steps=None if fused else 1,
        precision="mixed_bfloat16" if fused else "float32",
    )
    ((waited, rows, tokens),) = (meter.read() for meter in look.meters)
    assert rows == 3 * 34
    assert tokens == 3 * sum(len(text.split()) + 2 for text in data.train.texts)
    last = history.epochs[-1]
    assert 0.0 < last["input_wait"] <= 1.0
    assert last["examples_per_second"] > 0.0
    if not fused:
        # Every step but the first waits at least as long as its batch sleeps.
        assert waited >= (3 * STEPS - 1) * pause
        # The rate is one of a time that holds all these pauses.
        assert last["examples_per_second"] <= 34 / (STEPS * pause)


def test_a_run_of_another_process_is_watched_until_it_is_killed(tiny_vocab, tmp_path):
    (tmp_path / "vocabulary.json").write_text(json.dumps(tiny_vocab))
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, str(TRAINING), str(tmp_path / "vocabulary.json"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        try:
            assert process.stdout.readline() == "waiting\n"
            running = watch(folder)
        finally:
            process.send_signal(signal.SIGKILL)
    assert running.state == "running"
    assert running.progress["state"] == "training"
    assert (running.progress["process"], running.progress["phase"]) == (process.pid, 1)
    assert (running.progress["epoch"], running.progress["steps"]) == (2, STEPS)
    assert len(running.history) == 1
    assert running.checkpoint is not None
    killed = watch(folder)
    assert killed.state == "killed"
    # On two devices, each of which learns half of a batch.
    train_part = series(folder, "train")
    assert [step for step, _ in train_part["step/loss"]][:3] == [2, 4, 5]
    rate = [float(value) for _, value in train_part["speed/examples_per_second"]]
    assert all(value > 0 for value in rate)
    assert any(tag.startswith("weights/") for tag in train_part)
