"""Training as a whole: it can be stopped anywhere, trains what it says, and refuses what it cannot do."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
from dataclasses import replace

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from helpers import Stopped, tiny_text_classifier

from tfapp.data.text import TextData, TextSplit, load_text_data
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.disk import held
from tfapp.errors import ConfigError, OutputError, TrainingError, WeightsError
from tfapp.models import build_text_classifier
from tfapp.objectives import StepResult
from tfapp.objectives.standard import Standard
from tfapp.training import Phase, load_checkpoint, predict_logits, train

TOPICS = {
    "business": ["market", "bank", "price", "profit"],
    "sport": ["team", "goal", "match", "coach"],
    "tech": ["computer", "network", "phone", "software"],
}
PHASES = [Phase("head", epochs=2, learning_rate=0.02), Phase("all", epochs=2, learning_rate=0.01)]


def make_split(name, rows, seed):
    """Short texts with words of their topic among others, of 5 or 8 tokens."""
    draw = random.Random(seed)
    names = list(TOPICS)
    texts = [
        " ".join(draw.choice(TOPICS[names[row % 3]] + ["the", "a", "of"]) for _ in range(draw.choice([3, 6])))
        for row in range(rows)
    ]
    return TextSplit(name, tuple(texts), np.arange(rows, dtype=np.int32) % 3, tuple(names))


@pytest.fixture(scope="module")
def data():
    """26 training rows, so that an epoch of batches of 8 ends in a batch of 2."""
    report = load_text_data((["a", "b", "c", "d", "e", "f", "g", "h"] * 3, ["x", "y"] * 12), seed=0).report
    splits = [make_split("train", 26, 1), make_split("validation", 12, 2), make_split("test", 3, 3)]
    return TextData(*splits, tuple(TOPICS), report, 5)


@pytest.fixture(scope="module")
def make_model(tiny_vocab):
    def make(**options):
        return tiny_text_classifier(tiny_vocab, TOPICS, **options)

    return make


@pytest.fixture(params=["fused", pytest.param("keras", marks=pytest.mark.slow)])
def path(request, monkeypatch):
    """Both ways of computing the forward pass."""
    if request.param == "keras":
        monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    return request.param


@pytest.fixture
def through_keras(monkeypatch):
    """Its own pass, which compiles no kernels, serves where the pass is not what matters."""
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)


@pytest.fixture(scope="module")
def flipped(data):
    """The same with wrong validation labels: what training teaches makes them worse, epoch by epoch."""
    validation = data.validation
    wrong = TextSplit("validation", validation.texts, (validation.labels + 1) % 3, validation.classes)
    return TextData(data.train, wrong, data.test, data.classes, data.report, data.seed)


class Watch(keras.callbacks.Callback):
    """Notes which epochs are run and the weights after each, and stops the run where it is told."""

    def __init__(self, model, *, stop_after=None, stop_within=None):
        super().__init__()
        self.watched, self.stop_after, self.stop_within = model, stop_after, stop_within
        self.began, self.weights, self.logs = [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.began.append(epoch + 1)

    def on_train_batch_end(self, batch, logs=None):
        if len(self.began) == self.stop_within:
            raise Stopped

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.watched.get_weights())
        self.logs.append(dict(logs))
        if len(self.began) == self.stop_after:
            raise Stopped


def run(model, data, **options):
    options = {"phases": PHASES, "batch_size": 8, "precision": "float32", "verbose": False, **options}
    return train(model, data, **options)


def watched(model, data, *, stop_after=None, stop_within=None, **options):
    """Trains until the end or the stop; gives the watch, and the history if there is one."""
    watch = Watch(model, stop_after=stop_after, stop_within=stop_within)
    if stop_after is None and stop_within is None:
        return watch, run(model, data, callbacks=[watch], **options)
    with pytest.raises(Stopped):
        run(model, data, callbacks=[watch], **options)
    return watch, None


def assert_equal_weights(one, other):
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


def timeless(history):
    timed = ("seconds", "examples_per_second", "input_wait")
    return [{name: value for name, value in row.items() if name not in timed} for row in history.epochs]


@pytest.mark.parametrize("keep_best", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(path, make_model, data, tmp_path, keep_best):
    """Stopped after an epoch of the first phase and within an epoch of the second, dropout on."""
    options = {"keep_best": keep_best, "monitor": "val_loss"}
    model = make_model()
    _, unbroken = watched(model, data, **options)
    assert [row["epoch"] for row in unbroken.epochs] == [1, 2, 1, 2]

    options["run_dir"] = tmp_path
    began = []
    for stop in ({"stop_after": 1}, {"stop_within": 3}, {}):
        resumed = make_model()
        keras.random.uniform((len(began) + 1,))  # Another process has drawn other random numbers before.
        watch, history = watched(resumed, data, **options, **stop)
        began.append(watch.began)
    assert began == [[1], [2, 1, 2], [2]]
    assert timeless(history) == timeless(unbroken)
    assert_equal_weights(resumed.get_weights(), model.get_weights())

    finished = make_model()
    watch, history = watched(finished, data, **options)
    assert watch.began == []
    assert timeless(history) == timeless(unbroken)
    assert_equal_weights(finished.get_weights(), model.get_weights())


@pytest.mark.parametrize(
    "left", [pytest.param(left, marks=pytest.mark.slow) for left in ((1,), (3, 1, 1, 6, 9))] + [(2, 5, 7)]
)
def test_a_run_that_is_left_within_epochs_goes_on_at_the_step(path, make_model, data, tmp_path, left):
    """Left so many steps after each start, of 16; sums of loss and accuracy go on too."""
    model = make_model()
    _, unbroken = watched(model, data)
    steps = []

    class Leave(keras.callbacks.Callback):
        def __init__(self, after):
            super().__init__()
            self.after, self.done = after, 0

        def on_train_batch_end(self, batch, logs=None):
            self.done += 1
            if self.done == self.after:
                raise Stopped

    options = {"run_dir": tmp_path, "checkpoint_steps": 1}
    for after in left:
        leave = Leave(after)
        with pytest.raises(Stopped):
            run(make_model(), data, callbacks=[leave], **options)
        steps.append(leave.done)
    rest, resumed = Leave(None), make_model()
    history = run(resumed, data, callbacks=[rest], **options)
    assert sum(steps) + rest.done == 16
    assert timeless(history) == timeless(unbroken)
    assert_equal_weights(resumed.get_weights(), model.get_weights())


@pytest.mark.usefixtures("through_keras")
@pytest.mark.parametrize(
    ("number", "call", "place", "every"),
    [
        (signal.SIGTERM, 2, (0, 3), 1),
        (signal.SIGINT, 3, (1, 0), 1),
        pytest.param(signal.SIGTERM, 7, (2, 0), 1, marks=pytest.mark.slow),
        (signal.SIGTERM, 0, (1, 0), None),
    ],
)
def test_a_signal_ends_a_run_after_a_checkpoint(make_model, data, tmp_path, number, call, place, every):
    """Within an epoch of 4 steps, in the last one of it or of a phase, and where an epoch is one call."""
    model = make_model()
    _, unbroken = watched(model, data)
    handled = []

    def handler(*_):
        handled.append(number)
        raise KeyboardInterrupt

    class Send(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_begin(self, batch, logs=None):
            if self.seen == call:
                signal.raise_signal(number)
            self.seen += 1

    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(make_model(), data, callbacks=[Send()], run_dir=tmp_path, checkpoint_steps=every)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert handled == [number]
    resumed = make_model()
    progress = load_checkpoint(resumed, tmp_path)
    assert (progress.epochs_done, progress.steps_done) == place
    history = run(resumed := make_model(), data, run_dir=tmp_path, checkpoint_steps=1)
    assert timeless(history) == timeless(unbroken)
    assert_equal_weights(resumed.get_weights(), model.get_weights())


def test_two_runs_in_one_folder_are_refused(make_model, data, tmp_path):
    with (
        held(tmp_path, cure="go"),
        pytest.raises(OutputError, match=rf"process {os.getpid()} on .*another run_dir"),
    ):
        run(make_model(), data, run_dir=tmp_path)


@pytest.mark.usefixtures("through_keras")
def test_a_checkpoint_of_another_backbone_is_not_taken_over(make_model, data, tmp_path):
    run(make_model(), data, run_dir=tmp_path)
    other = make_model()
    other.backbone.set_weights([value + 0.01 for value in other.backbone.get_weights()])
    watch, _ = watched(other, data, run_dir=tmp_path)
    assert watch.began == [1, 2, 1, 2]


@pytest.mark.slow
def test_a_checkpoint_of_another_head_is_not_taken_over(make_model, data, tmp_path, caplog):
    caplog.set_level("INFO", "tfapp")
    began = []
    for seed in (0, 0, 1):
        watch, _ = watched(make_model(seed=seed), data, run_dir=tmp_path)
        began.append(len(watch.began))
    assert began == [4, 0, 4]
    assert caplog.text.count("is of another run (data, model or settings); starting anew") == 1


class Weighted(Standard):
    """An objective with a setting."""

    name = "weighted"

    def __init__(self, weight):
        self.weight = weight


@pytest.mark.slow
def test_a_checkpoint_of_another_objective_is_not_taken_over(make_model, data, tmp_path):
    began = []
    for weight in (1.0, 1.0, 2.0):
        watch, _ = watched(make_model(), data, objective=Weighted(weight), run_dir=tmp_path)
        began.append(len(watch.began))
    assert began == [4, 0, 4]


def test_both_paths_learn_the_same_without_dropout(make_model, data, monkeypatch):
    phases = [Phase(1, epochs=1, learning_rate=0.005)]
    fused, plain = (make_model(dropout=0.0, dropout_rate=0.0) for _ in range(2))
    first = run(fused, data, phases=phases)
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    second = run(plain, data, phases=phases)
    assert first.epochs[0]["loss"] == pytest.approx(second.epochs[0]["loss"], abs=1e-5)
    # Adam turns a gradient's sign into a step: near 0 a rounding can turn it, hence no tighter bound.
    for one, other in zip(fused.get_weights(), plain.get_weights(), strict=True):
        assert np.abs(one - other).mean() < 1e-4


def test_it_learns(make_model, data):
    model = make_model()
    history = run(model, data, phases=[PHASES[0], Phase("all", epochs=12, learning_rate=0.01)])
    assert history.epochs[-1]["loss"] < 0.5 * history.epochs[0]["loss"]
    logits = predict_logits(model, data.validation.texts)
    accuracy = (logits.argmax(axis=1) == data.validation.labels).mean()
    assert accuracy == pytest.approx(max(row["val_accuracy"] for row in history.epochs))
    assert accuracy > 0.6  # by chance 1 of 3


def test_the_head_phase_trains_the_head_only(make_model, data):
    model = make_model()
    before = [value.copy() for value in model.backbone.get_weights()]
    head = [value.copy() for value in model.head_layers[1].get_weights()]
    run(model, data, phases=PHASES[:1])
    assert_equal_weights(model.backbone.get_weights(), before)
    for old, new in zip(head, model.head_layers[1].get_weights(), strict=True):
        assert np.abs(old - new).max() > 1e-3


def test_a_top_block_is_trained_alike_with_and_without_the_cache(path, make_model, data, caplog):
    caplog.set_level("INFO", "tfapp")
    phases = [Phase(1, epochs=2, learning_rate=0.005)]
    fresh, cached, computed = make_model(), make_model(), make_model()
    run(cached, data, phases=phases)
    assert "features below 'top 1'" in caplog.text
    caplog.clear()
    run(computed, data, phases=phases, feature_cache_megabytes=0)
    assert "beyond feature_cache_megabytes = 0" in caplog.text
    top = {
        variable.path for variable in [*cached.blocks[1].layers[0].weights, *cached.head_layers[1].weights]
    }
    moved = 0
    for before, one, other in zip(fresh.weights, cached.weights, computed.weights, strict=True):
        if before.path in top:
            moved += bool(np.abs(one.numpy() - before.numpy()).max() > 1e-3)
            np.testing.assert_allclose(one, other, atol=1e-3, err_msg=before.path)
        else:
            np.testing.assert_array_equal(one, before, err_msg=before.path)
            np.testing.assert_array_equal(other, before, err_msg=before.path)
    assert moved > 10


def test_patience_ends_a_phase_and_the_best_epoch_is_kept(make_model, flipped, tmp_path):
    phases = [Phase("head", epochs=6, learning_rate=0.1), Phase("head", epochs=6, learning_rate=0.1)]
    options = {"phases": phases, "monitor": "val_loss", "patience": 2}
    model = make_model()
    watch, history = watched(model, flipped, **options)
    losses = [row["val_loss"] for row in history.epochs]
    assert watch.began == [1, 2, 3, 1, 2, 3]
    assert losses[0] == min(losses)
    assert_equal_weights(model.get_weights(), watch.weights[0])

    # Killed after the phase was ended early: the next one begins.
    watched(make_model(), flipped, stop_after=3, run_dir=tmp_path, **options)
    resumed = make_model()
    watch, again = watched(resumed, flipped, run_dir=tmp_path, **options)
    assert watch.began == [1, 2, 3]
    assert timeless(again) == timeless(history)
    assert_equal_weights(resumed.get_weights(), model.get_weights())


def test_without_keep_best_the_last_epoch_is_kept(make_model, flipped):
    model = make_model()
    phases = [Phase("head", epochs=3, learning_rate=0.1)]
    watch, history = watched(model, flipped, phases=phases, monitor="val_loss", keep_best=False)
    assert history.epochs[0]["val_loss"] < history.epochs[-1]["val_loss"]
    assert_equal_weights(model.get_weights(), watch.weights[-1])


@pytest.mark.parametrize(
    ("class_weight", "weights"),
    [(None, [1, 1, 1]), ({"sport": 3.0}, [1, 3, 1]), ("balanced", [26 / 27, 26 / 27, 26 / 24])],
)
def test_the_loss_is_the_weighted_one(make_model, data, class_weight, weights):
    """At a learning rate of next to nothing the epoch's loss is that of the model as it was."""
    model = make_model(dropout_rate=0.0)
    kernel, bias = model.head_layers[1].get_weights()
    model.head_layers[1].set_weights([kernel * 50, bias])  # Otherwise every row's loss is nearly log(3).

    def mean_loss(split, weights):
        logits = predict_logits(model, split.texts).astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses = -logs[np.arange(len(split)), split.labels]
        return (losses * np.array(weights)[split.labels]).mean()

    expected = mean_loss(data.train, weights), mean_loss(data.validation, [1, 1, 1])
    phases = [Phase("head", epochs=1, learning_rate=1e-9)]
    (row,) = run(model, data, phases=phases, class_weight=class_weight).epochs
    assert row["loss"] == pytest.approx(expected[0], rel=1e-5)
    assert row["val_loss"] == pytest.approx(expected[1], rel=1e-5)


def test_the_other_recipe_trains_too(make_model, data):
    history = run(
        make_model(dropout_rate=0.0),
        data,
        phases=[Phase("head", epochs=3, learning_rate=0.05), Phase("all", epochs=2, learning_rate=0.005)],
        optimizer="sgd",
        schedule="constant",
        loss="focal",
        class_weight="balanced",
        label_smoothing=0.1,
        layer_decay=0.9,
        clip_norm=None,
    )
    losses = [row["loss"] for row in history.epochs]
    assert losses[-1] < losses[0]


class Full(Standard):
    """An objective whose step meets a full disk, as TensorFlow tells it."""

    name = "full"

    def step(self, model, inputs, labels, sample_weight):
        raise tf.errors.ResourceExhaustedError(None, None, "events.out; No space left on device")


def test_a_full_disk_is_not_taken_for_a_lack_of_memory(make_model, data):
    with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
        run(make_model(), data, phases=PHASES[:1], objective=Full())


def test_the_length_that_a_model_was_built_with_is_kept(make_model, data):
    model = make_model(max_length=6)
    phases = [Phase("head", epochs=1, learning_rate=0.02)]
    assert run(model, data, phases=phases).lengths.max_length == 6
    assert run(model, data, phases=phases, max_length=5).lengths.max_length == 5
    assert type(model).from_config(model.get_config()).built_length == 6


def test_models_with_one_tokenizer_keep_their_own_lengths(tiny_vocab):
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=32)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(tiny_vocab), num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    )
    lengths = (None, 8, 16)
    models = [
        build_text_classifier(backbone, classes=("a", "b"), tokenizer=tokenizer, max_length=length)
        for length in lengths
    ]
    assert [model.preprocessor.max_length for model in models] == [32, 8, 16]
    windows = WordPieceTokenizer(tiny_vocab, long_texts="windows")
    for asked, expected in ((None, "windows"), ("truncate", "truncate")):
        model = build_text_classifier(backbone, classes=("a", "b"), tokenizer=windows, long_texts=asked)
        assert model.preprocessor.long_texts == expected
    assert tokenizer.max_length == 32


def test_the_seed_decides_the_head(make_model):
    heads = [make_model(**options).head_layers[1].get_weights()[0] for options in ({}, {"seed": 1})]
    keras.utils.set_random_seed(99)
    again = make_model(seed=1).head_layers[1].get_weights()[0]
    assert np.abs(heads[0] - heads[1]).max() > 0.01
    np.testing.assert_array_equal(heads[1], again)


def test_training_forgets_the_temperature_of_the_model_before(make_model, data):
    model = make_model()
    model.temperature = 2.5
    with pytest.raises(ConfigError, match="positions for 64 tokens"):
        run(model, data, phases=PHASES[:1], max_length=65)
    assert model.temperature == 2.5
    run(model, data, phases=PHASES[:1])
    assert model.temperature == 1.0


def test_the_history_has_the_rate_of_an_epochs_last_step(make_model, data):
    """26 rows in batches of 8: 8 steps, one of them to warm up, then a line that would reach 0 at step 8."""
    history = run(make_model(), data, phases=[Phase("head", epochs=2, learning_rate=0.07)])
    rates = [row["learning_rate"] for row in history.epochs]
    assert rates == pytest.approx([0.05, 0.01])


class Hungry(Standard):
    """An objective that asks for more memory than any machine has."""

    name = "hungry"

    def step(self, model, inputs, labels, sample_weight):
        result = super().step(model, inputs, labels, sample_weight)
        size = tf.cast(tf.shape(result.logits)[0], tf.int64) * 2**45
        return StepResult(
            result.loss + tf.reduce_sum(tf.random.uniform([size])), result.logits, result.gradients
        )


@pytest.mark.usefixtures("through_keras")
def test_memory_that_runs_out_is_told_with_the_cure(make_model, data):
    with pytest.raises(
        TrainingError, match=r"phase 1 \(head\) needs more memory.*lower batch_size \(now 1\)"
    ):
        run(make_model(), data, phases=PHASES[:1], objective=Hungry(), batch_size=1)


class Broken(Standard):
    """An objective whose loss is no number from a step on."""

    name = "broken"

    def __init__(self, step):
        self.first = step

    def step(self, model, inputs, labels, sample_weight):
        result = super().step(model, inputs, labels, sample_weight)
        factor = tf.where(model.optimizer.iterations < self.first, 1.0, float("nan"))
        return StepResult(result.loss * factor, result.logits, result.gradients)


def test_a_loss_that_is_no_number_from_the_first_step_on_ends_the_run(make_model, data, tmp_path):
    with pytest.raises(TrainingError, match=r"phase 1 \(head\), epoch 1, step 1, .*it was the first step"):
        run(make_model(), data, phases=PHASES[:1], objective=Broken(0), run_dir=tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "history.csv").exists()


@pytest.mark.usefixtures("through_keras")
@pytest.mark.parametrize("steps", [1, 2])
def test_a_loss_that_becomes_no_number_is_told_with_its_rows_and_the_weights_before(
    make_model, data, tmp_path, steps
):
    """Step 2 of epoch 2, alone or run together with another; 26 rows in batches of 8 are 4 steps an epoch."""
    model, phases = make_model(), [Phase("all", epochs=2, learning_rate=0.01)]
    with pytest.raises(TrainingError, match=r"epoch 2, step 2, .*lower learning_rate") as raised:
        run(model, data, phases=phases, objective=Broken(5), run_dir=tmp_path, checkpoint_steps=steps)
    rows = re.search(r"training rows ([\d, ]+)\.", str(raised.value))[1].split(", ")
    assert len(set(rows)) in (2, 8)
    fresh = make_model()
    progress = load_checkpoint(fresh, tmp_path)
    assert (progress.epochs_done, progress.steps_done) == (1, 2 - steps)
    assert all(np.isfinite(value).all() for value in fresh.get_weights())
    with pytest.raises(WeightsError, match="no checkpoint with finite weights"):
        load_checkpoint(fresh, tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": []}, "phases is empty"),
        ({"phases": [Phase(3, 1, 0.01)]}, "train = 3"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": 2.5}, r"batch_size = 2\.5: it must be a whole number"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"weight_decay": -0.1}, r"weight_decay = -0\.1"),
        ({"weight_decay": float("nan")}, "weight_decay = nan"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"schedule": "linaer"}, "did you mean 'linear'"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"class_weight": "balance"}, "balanced"),
        ({"class_weight": {"sports": 2.0}}, "did you mean 'sport'"),
        ({"class_weight": {"sport": -2.0}}, "class_weight of 'sport'"),
        ({"loss": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"loss": "focal", "focal_gamma": -1.0}, "focal_gamma"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"objective": "standart"}, "did you mean 'standard'"),
        ({"monitor": "accurracy"}, "did you mean 'accuracy'"),
        ({"patience": 0}, "patience"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"max_length": 2}, "max_length = 2"),
        ({"max_length": 65}, "positions for 64 tokens"),
        ({"feature_cache_megabytes": -1}, "feature_cache_megabytes"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**31}, "seed = "),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    make_model, data, monkeypatch, tmp_path, options, message
):
    def work(*_, **__):
        pytest.fail("work was begun")

    monkeypatch.setattr(WordPieceTokenizer, "encode", work)
    model = make_model()
    with pytest.raises(ConfigError, match=message):
        run(model, data, run_dir=tmp_path / "run", **options)
    assert model.preprocessor.max_length == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("body", 1, 0.01), "phase train = 'body'"),
        ((0, 1, 0.01), "phase train = 0"),
        ((True, 1, 0.01), "phase train = True"),
        (("all", 0, 0.01), "phase epochs = 0"),
        (("all", 1.5, 0.01), r"phase epochs = 1\.5"),
        (("all", 1, 0.0), "phase learning_rate = 0.0"),
        (("all", 1, 1.5), r"phase learning_rate = 1\.5"),
        (("all", 1, float("nan")), "phase learning_rate = nan"),
    ],
)
def test_an_impossible_phase_is_refused_as_it_is_made(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Phase(*arguments)


def test_other_classes_than_the_models_are_refused(make_model, data):
    turned = data.classes[::-1]
    splits = [TextSplit(name, s.texts, 2 - s.labels, turned) for name, s in data.splits.items()]
    with pytest.raises(ConfigError, match=r"\['business', 'sport', 'tech'\] are not the data's \['tech', "):
        run(make_model(), TextData(*splits, turned, data.report, 0))


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(make_model, data, monkeypatch, tmp_path):
    monkeypatch.setattr(WordPieceTokenizer, "encode", lambda *_, **__: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot write to run_dir = .*file/run"):
        run(make_model(), data, run_dir=tmp_path / "file" / "run")


def test_callbacks_of_keras_work(make_model, data, tmp_path):
    model = make_model()
    seen = []
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
    ]
    history = run(model, data, phases=PHASES[:1], keep_best=False, callbacks=callbacks)
    with (tmp_path / "log.csv").open(encoding="utf-8") as file:
        logged = [float(row["loss"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([row["loss"] for row in history.epochs])
    assert seen

    logits = predict_logits(model, data.test.texts)
    saved = keras.models.load_model(tmp_path / "2.keras")
    np.testing.assert_array_equal(predict_logits(saved, data.test.texts), logits)
    loaded = make_model()
    loaded.preprocessor.max_length = model.preprocessor.max_length
    loaded.load_weights(tmp_path / "2.weights.h5")
    np.testing.assert_array_equal(predict_logits(loaded, data.test.texts), logits)


def test_a_run_leaves_its_records(make_model, data, tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    caplog.set_level("INFO", "tfapp")
    history = run(make_model(), data, phases=PHASES[:1], run_dir=tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: str(value) for name, value in row.items()} for row in history.epochs]
    assert history.save_csv(tmp_path / "copy.csv").read_text() == (tmp_path / "run/history.csv").read_text()
    assert [(row["phase"], row["train"], row["epoch"]) for row in history.epochs] == [
        (1, "head", 1),
        (1, "head", 2),
    ]
    for part, column in (("train", "loss"), ("validation", "val_loss")):
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / part))
        events.Reload()
        values = [float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")]
        assert values == pytest.approx([row[column] for row in history.epochs], rel=1e-6)

    # Other settings in the same folder are another run, which trains on the same features.
    caplog.clear()
    phases = [Phase("head", epochs=1, learning_rate=0.01)]
    watch, history = watched(make_model(), data, phases=phases, run_dir=tmp_path / "run")
    assert watch.began == [1]
    assert len(history.epochs) == 1
    assert "MB on disk, reused" in caplog.text


def test_without_a_folder_nothing_is_left(make_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run(make_model(), data, phases=PHASES[:1])
    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides_everything(make_model, data, capsys):
    phases = [Phase("head", epochs=1, learning_rate=0.02)]
    first, second, other = make_model(), make_model(), make_model()
    run(first, data, phases=phases)
    # Neither a progress bar nor numbers that were drawn before change the result.
    keras.random.uniform((3,))
    run(second, data, phases=phases, seed=data.seed, verbose=True)
    assert "4/4" in capsys.readouterr().out
    run(other, data, phases=phases, seed=2**31 - 1)
    assert_equal_weights(first.get_weights(), second.get_weights())
    assert any((one != two).any() for one, two in zip(first.get_weights(), other.get_weights(), strict=True))


def test_bfloat16_trains_float32_variables(path, make_model, data):
    phases = [Phase(1, epochs=1, learning_rate=0.005)]
    exact, model = make_model(), make_model()
    reference = run(exact, data, phases=phases)
    history = run(model, data, phases=phases, precision="mixed_bfloat16")
    assert (reference.precision, history.precision) == ("float32", "mixed_bfloat16")
    losses = [each.epochs[0]["loss"] for each in (reference, history)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert {layer.dtype_policy.name for layer in model.backbone._flatten_layers()} == {"float32"}


def test_the_history_tells_length_and_padding(make_model, data):
    model = make_model()
    history = run(model, data, phases=[Phase("head", epochs=1, learning_rate=0.02)])
    assert history.lengths.max_length == model.preprocessor.max_length == 8
    assert history.lengths.rows == len(data.train)
    assert 0.0 < history.padding_share < 3 / 8  # as much as rows of 5 among batches of 8 can have
    cut = run(model, data, phases=[Phase("head", epochs=1, learning_rate=0.02)], max_length=5)
    assert (cut.lengths.max_length, cut.padding_share) == (5, 0.0)


@pytest.mark.parametrize("train", ["head", 1, "all"])
def test_windows_learn_their_texts_label(make_model, data, train):
    """Long texts in windows train as the same windows do that are texts of their own."""

    def pieces(split):
        rows = [(text.split(), label) for text, label in zip(split.texts, split.labels, strict=True)]
        parts = [
            (" ".join(words[start : start + 3]), label)
            for words, label in rows
            for start in range(0, len(words), 3)
        ]
        return TextSplit(split.name, *zip(*parts, strict=True), split.classes)

    phases = [Phase(train, epochs=2, learning_rate=0.02)]
    whole, apart = make_model(long_texts="windows"), make_model()
    history = run(whole, data, phases=phases, max_length=5)
    cut = replace(data, train=pieces(data.train), validation=pieces(data.validation))
    assert len(cut.train) > len(data.train)
    assert timeless(run(apart, cut, phases=phases, max_length=5)) == timeless(history)
    assert_equal_weights(whole.get_weights(), apart.get_weights())


@pytest.mark.slow
def test_an_encoder_without_segments_is_trained_through_keras(tiny_vocab, data, tmp_path):
    def make():
        keras.utils.set_random_seed(0)
        backbone = keras_hub.models.DistilBertBackbone(
            vocabulary_size=len(tiny_vocab),
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            max_sequence_length=64,
        )
        tokenizer = WordPieceTokenizer(tiny_vocab, max_length=32)
        return build_text_classifier(backbone, classes=tuple(TOPICS), pooling="cls", tokenizer=tokenizer)

    model = make()
    assert set(model.input) == {"token_ids", "padding_mask"}
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    _, history = watched(model, data, keep_best=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    still = [v.path for v in model.trainable_variables if (before[v.path] == v.numpy()).all()]
    assert still == []
    assert predict_logits(model, data.test.texts).shape == (3, 3)

    watched(make(), data, run_dir=tmp_path, keep_best=False, stop_after=3)
    resumed = make()
    watch, again = watched(resumed, data, run_dir=tmp_path, keep_best=False)
    assert watch.began == [2]
    assert timeless(again) == timeless(history)
    assert_equal_weights(resumed.get_weights(), model.get_weights())
