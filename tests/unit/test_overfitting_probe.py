"""Catastrophic overfitting: a training with the disease is stopped and undone, a healthy one is left alone."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.attacks import ATTACKS
from tfapp.data.image import load_image_data
from tfapp.errors import ConfigError
from tfapp.models import build_image_classifier
from tfapp.objectives import StepResult
from tfapp.training import CatastrophicOverfitting, Phase, train

SIZE = 8
EPSILON = 24 / 255


class Adversarial:
    """Trains on PGD's images; when it falls ill, on FGSM's alone, and away from what resists PGD.

    Args:
        ill: From which share of the phase on it is ill; 1 for never.
    """

    name = "adversarial-of-a-test"

    def __init__(self, ill: float) -> None:
        self.ill = ill

    def step(self, model, inputs, labels, sample_weight):
        images = tf.cast(inputs["pixels"], tf.float32)

        def answers(pixels):
            return model({"pixels": pixels}, training=False)

        single = ATTACKS["fgsm"](answers, images, labels, epsilon=EPSILON)
        several = ATTACKS["pgd"](answers, images, labels, epsilon=EPSILON, num_steps=4)
        sick = tf.cast(model.progress >= self.ill, tf.float32)
        with tf.GradientTape() as tape:
            on_single = model({"pixels": single}, training=True)
            on_several = model({"pixels": several}, training=True)
            resisting = model.supervised_loss(inputs, labels, on_several, sample_weight)
            loss = (1 - sick) * resisting + sick * (
                2 * model.supervised_loss(inputs, labels, on_single, sample_weight)
                - tf.minimum(resisting, 4.0)
            )
        gradients = tape.gradient(loss, list(model.trainable_variables))
        return StepResult(model.unscaled(loss), on_single, gradients)


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    labels = np.arange(160) % 4
    kinds = generator.normal(0, 35, (4, SIZE, SIZE, 3))
    images = 128 + kinds[labels] + generator.normal(0, 10, (160, SIZE, SIZE, 3))
    names = np.array(["a", "b", "c", "d"])[labels]
    images = np.clip(images, 0, 255).astype(np.uint8)
    return load_image_data((images, names), validation_fraction=0.3, near_duplicates="keep", seed=1)


def make_model(data):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    hidden = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(hidden)
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(hidden))
    return build_image_classifier(
        keras.Model(pixels, hidden), classes=data.classes, image_size=SIZE, dropout_rate=0.0
    )


def run(data, *, ill, epochs, **options):
    model = make_model(data)
    probe = CatastrophicOverfitting(data.validation, epsilon=EPSILON, random_start=False)
    history = train(
        model,
        data,
        phases=[Phase("all", epochs, 5e-3)],
        batch_size=16,
        objective=Adversarial(ill),
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
        model, probe, epochs = run(data, ill=0.5, epochs=14, run_dir=folder)
    finally:
        logging.getLogger("tfapp").removeHandler(handler)
    warnings = [record.getMessage() for record in records if record.levelno == logging.WARNING]
    return model, probe, epochs, warnings, folder


def test_the_disease_ends_the_phase_and_is_named_with_both_figures(diseased):
    _, probe, epochs, warnings, _ = diseased
    assert probe.overfitted
    assert len(epochs) < 14
    best = max(epochs, key=lambda row: row["val_multi_step_accuracy"])
    last = epochs[-1]
    assert best["val_multi_step_accuracy"] > 0.7
    assert last["val_multi_step_accuracy"] <= best["val_multi_step_accuracy"] / 2
    assert last["val_single_step_accuracy"] >= best["val_single_step_accuracy"] - 0.02
    (warning,) = warnings
    assert f"epoch {last['epoch']}" in warning
    assert f"weights of epoch {best['epoch']} are put back" in warning
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
    assert header.endswith("seconds,val_single_step_accuracy,val_multi_step_accuracy")


def test_a_resumed_run_knows_that_the_phase_was_ended(diseased, data):
    model, _, epochs, _, folder = diseased
    resumed, probe, again = run(data, ill=0.5, epochs=14, run_dir=folder)
    assert [row["epoch"] for row in again] == [row["epoch"] for row in epochs]
    assert not probe.overfitted
    for one, other in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_healthy_training_is_left_alone(data):
    _, probe, epochs = run(data, ill=1.0, epochs=8)
    assert not probe.overfitted
    assert len(epochs) == 8
    assert epochs[-1]["val_multi_step_accuracy"] > 0.7


def test_epochs_of_an_interrupted_run_count(data):
    probe = CatastrophicOverfitting(data.validation, epsilon=EPSILON)
    row = {"phase": 1, "epoch": 3, "val_single_step_accuracy": 0.6, "val_multi_step_accuracy": 0.5}
    probe.take_up([{"phase": 1, "epoch": 1}, row])
    assert probe._best == ("phase 1, epoch 3", 0.6, 0.5)


@pytest.mark.parametrize(
    ("options", "said"), [({"drop": 1.0}, "drop = 1.0"), ({"num_steps": 0}, "num_steps = 0")]
)
def test_wrong_arguments_are_refused(data, options, said):
    with pytest.raises(ConfigError, match=said):
        CatastrophicOverfitting(data.validation, **options)
