"""Catastrophic overfitting: training with the disease is stopped and undone, healthy training left alone."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.image import load_image_data
from tfapp.errors import ConfigError
from tfapp.models import build_image_classifier
from tfapp.objectives import StepResult
from tfapp.training import CatastrophicOverfitting, Phase, train

SIZE = 8
EPSILON = 19.3 / 255  # whose steps of PGD are no whole grey levels
STRIPES = np.where(np.arange(SIZE) % 2, 1.0, -1.0)
STRONG = np.stack(
    [np.tile(STRIPES[:, None, None], (1, SIZE, 3)), np.tile(STRIPES[None, :, None], (SIZE, 1, 3))]
)
BLOCKS = np.where(np.arange(SIZE) // 2 % 2, 1.0, -1.0)
WEAK = np.stack([np.tile(BLOCKS[:, None, None], (1, SIZE, 3)), np.tile(BLOCKS[None, :, None], (SIZE, 1, 3))])


@keras.saving.register_keras_serializable("tests")
class Ripple(keras.layers.Layer):
    """Turns the slope around at whole grey levels, where clean images are, as far as its weight is 2.

    One step from a clean image then goes the wrong way. Several steps pass points between the levels, two
    thirds of which have the right slope.
    """

    def build(self, shape):
        self.amount = self.add_weight(shape=(), initializer="zeros", name="amount")

    def call(self, inputs):
        return inputs - self.amount * tf.sin(2 * np.pi * inputs) / (2 * np.pi)


class FallingIll:
    """Pulls the weights to healthy ones and, from some share of the phase on, to those of the disease.

    Healthy ones look at stripes of 10 to 40 grey levels; ill ones at blocks of 2, which any attack beyond
    that takes away, and hide it from a single step.
    """

    name = "falling-ill"

    def __init__(self, ill):
        self.ill = ill

    def step(self, model, inputs, labels, sample_weight):
        sick = tf.cast(model.progress >= self.ill, tf.float32)
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = 0.0
            for variable in model.trainable_variables:
                healthy, ill = TARGETS[variable.path.rpartition("/")[2]]
                target = (1 - sick) * healthy + sick * ill
                loss += 0.5 * tf.reduce_sum(tf.square(variable - target))
        gradients = tape.gradient(loss, list(model.trainable_variables))
        return StepResult(model.unscaled(loss), logits, gradients)


def kernel(templates):
    return tf.constant(templates.reshape(2, -1).T / 500.0, tf.float32)


TARGETS = {
    "amount": (0.0, 2.0),
    "kernel": (kernel(STRONG), kernel(WEAK)),
    "bias": (tf.zeros(2), tf.zeros(2)),
}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    labels = np.arange(160) % 2
    amplitudes = generator.uniform(10, 40, 160)[:, None, None, None]
    images = 128 + amplitudes * STRONG[labels] + 2 * WEAK[labels]
    images = np.round(images + generator.normal(0, 1, images.shape)).astype(np.uint8)
    names = np.array(["lying", "standing"])[labels]
    return load_image_data((images, names), validation_fraction=0.4, near_duplicates="keep", seed=1)


def make_model(data):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = Ripple()(keras.layers.Rescaling(1.0, -128.0)(pixels))
    network = keras.Model(pixels, keras.layers.Flatten()(hidden))
    return build_image_classifier(network, classes=data.classes, image_size=SIZE, dropout_rate=0.0)


def run(data, *, ill, epochs, **options):
    model = make_model(data)
    probe = CatastrophicOverfitting(data.validation, epsilon=EPSILON, random_start=False)
    history = train(
        model,
        data,
        phases=[Phase("all", epochs, 0.3)],
        batch_size=4,
        optimizer="sgd",
        weight_decay=0.0,
        warmup_fraction=0.0,
        clip_norm=None,
        objective=FallingIll(ill),
        schedule="constant",
        callbacks=[probe],
        precision="float32",
        verbose=False,
        seed=0,
        **options,
    )
    return model, probe, history.epochs


@pytest.fixture(scope="module")
def diseased(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("tfapp").addHandler(handler)
    try:
        model, probe, epochs = run(data, ill=0.5, epochs=6, run_dir=folder)
    finally:
        logging.getLogger("tfapp").removeHandler(handler)
    warnings = [record.getMessage() for record in records if record.levelno == logging.WARNING]
    return model, probe, epochs, warnings, folder


def test_the_disease_ends_the_phase_and_is_named_with_both_figures(diseased):
    _, probe, epochs, warnings, _ = diseased
    assert probe.overfitted
    assert len(epochs) == 4
    best = max(epochs, key=lambda row: row["val_multi_step_accuracy"])
    last = epochs[-1]
    assert 0.55 < best["val_multi_step_accuracy"] < 0.8  # the share of stripes beyond 19.3 grey levels
    assert last["val_multi_step_accuracy"] < 0.1
    assert last["val_single_step_accuracy"] == 1.0
    (warning,) = warnings
    assert f"overfitting in phase 1, epoch {last['epoch']}:" in warning
    assert f"weights of phase 1, epoch {best['epoch']} are put back" in warning
    for row in (best, last):
        for name in ("val_single_step_accuracy", "val_multi_step_accuracy"):
            assert f"{row[name]:.3f}" in warning


def test_the_best_weights_are_those_that_the_run_ends_with(diseased, data):
    model, _, epochs, *_ = diseased
    best = max(row["val_multi_step_accuracy"] for row in epochs)
    again = CatastrophicOverfitting(data.validation, epsilon=EPSILON, random_start=False)
    again.set_model(type("Training", (), {"whole": model})())
    again.on_train_begin()
    logs = {}
    again.on_epoch_end(0, logs)
    assert logs["val_multi_step_accuracy"] == best


def test_the_history_has_both_accuracies(diseased):
    *_, folder = diseased
    header = (folder / "history.csv").read_text().splitlines()[0]
    assert header.endswith(",input_wait,val_single_step_accuracy,val_multi_step_accuracy")


def test_a_resumed_run_knows_that_the_phase_was_ended(diseased, data):
    model, _, epochs, _, folder = diseased
    resumed, probe, again = run(data, ill=0.5, epochs=6, run_dir=folder)
    assert [row["epoch"] for row in again] == [row["epoch"] for row in epochs]
    assert len(probe.found) == 1
    assert probe.found[0].epoch == again[-1]["epoch"]
    for one, other in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_healthy_training_is_left_alone(data):
    _, probe, epochs = run(data, ill=1.0, epochs=3)
    assert not probe.overfitted
    assert len(epochs) == 3
    assert epochs[-1]["val_multi_step_accuracy"] > 0.55


def test_epochs_of_an_interrupted_run_count(data):
    probe = CatastrophicOverfitting(data.validation, epsilon=EPSILON)
    row = {"phase": 1, "epoch": 3, "val_single_step_accuracy": 0.7, "val_multi_step_accuracy": 0.6}
    probe.take_up([{"phase": 1, "epoch": 1}, row])
    assert probe._best == (1, 3, 0.7, 0.6)


def test_the_best_epoch_of_an_earlier_phase_is_named_with_its_phase(data, caplog):
    probe = CatastrophicOverfitting(data.validation, epsilon=EPSILON)
    rows = [(1, 2, 0.7, 0.6), (2, 2, 0.9, 0.1)]
    names = ("phase", "epoch", "val_single_step_accuracy", "val_multi_step_accuracy")
    probe.take_up([dict(zip(names, row, strict=True)) for row in rows])
    (found,) = probe.found
    said = "phase 2, epoch 2: accuracy under one step is 0.900 (0.700 in phase 1, epoch 2)"
    assert str(found).startswith(said)
    assert "norm linf, epsilon 0.07569, on 64 validation images" in str(found)


@pytest.mark.parametrize(
    ("options", "said"), [({"drop": 1.0}, "drop = 1.0"), ({"num_steps": 0}, "num_steps = 0")]
)
def test_wrong_arguments_are_refused(data, options, said):
    with pytest.raises(ConfigError, match=said):
        CatastrophicOverfitting(data.validation, **options)


def test_a_worker_goes_by_what_the_chief_has_measured(data):
    """Its own figures are healthy; those of the chief have parted."""

    class FromChief:
        def from_chief(self, value):
            assert value == [0.9, 0.8]
            return next(said)

    class Healthy(CatastrophicOverfitting):
        def _probe(self):
            return 0.9, 0.8

    said = iter([[0.9, 0.8], [0.95, 0.05]])
    probe, model = Healthy(data.validation), make_model(data)
    probe.set_model(SimpleNamespace(whole=model, stop_training=False))
    probe.workers = FromChief()
    logs = {}
    probe.on_epoch_end(0, logs)
    assert not probe.model.stop_training
    probe.on_epoch_end(1, logs)
    assert probe.model.stop_training
    assert logs["val_multi_step_accuracy"] == 0.05
    assert (probe.found[0].epoch, probe.found[0].best_epoch) == (2, 1)
