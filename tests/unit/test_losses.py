"""The loss beside Keras's own, and by hand where Keras has none."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.training.losses import ClassificationLoss, make_loss

GENERATOR = np.random.default_rng(0)
LOGITS = (GENERATOR.normal(size=(32, 5)) * 3).astype(np.float32)
LABELS = GENERATOR.integers(0, 5, 32).astype(np.int32)
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_cross_entropy_equals_keras():
    ours = make_loss("cross_entropy")
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(ours(LABELS, LOGITS), theirs(LABELS, LOGITS), rtol=1e-6)
    np.testing.assert_allclose(ours.call(LABELS, LOGITS), theirs.call(LABELS, LOGITS), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_equals_keras(smoothing):
    ours = make_loss("cross_entropy", label_smoothing=smoothing)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(ours.call(LABELS, LOGITS), theirs.call(ONE_HOT, LOGITS), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_equals_keras(gamma, smoothing):
    ours = make_loss("focal", focal_gamma=gamma, label_smoothing=smoothing)
    theirs = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=gamma, from_logits=True, label_smoothing=smoothing
    )
    # Keras clips probabilities at 1e-7, which logits of this size do not reach.
    np.testing.assert_allclose(ours.call(LABELS, LOGITS), theirs.call(ONE_HOT, LOGITS), rtol=1e-4)


def test_focal_loss_by_hand():
    probability = softmax(LOGITS)[np.arange(32), LABELS]
    expected = -((1 - probability) ** 2) * np.log(probability)
    np.testing.assert_allclose(make_loss("focal").call(LABELS, LOGITS), expected, rtol=1e-4, atol=1e-7)


def test_focal_loss_with_gamma_0_is_cross_entropy():
    focal = make_loss("focal", focal_gamma=0.0)
    np.testing.assert_array_equal(focal.call(LABELS, LOGITS), make_loss("cross_entropy").call(LABELS, LOGITS))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_certain_answer_has_a_finite_gradient(gamma):
    logits = tf.constant([[1000.0, 0.0], [0.0, 1000.0], [1000.0, 0.0]])
    loss = make_loss("focal", focal_gamma=gamma)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(tf.constant([0, 0, 1]), logits)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, logits)).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_losses_compute_in_float32_for_logits_of_any_type(name):
    half = tf.cast(LOGITS, tf.bfloat16)
    rounded = tf.cast(half, tf.float32)
    loss = make_loss(name)
    assert loss.call(LABELS, half).dtype == tf.float32
    np.testing.assert_array_equal(loss.call(LABELS, half), loss.call(LABELS, rounded))


def test_labels_may_stand_in_a_column():
    loss = make_loss("cross_entropy")
    np.testing.assert_array_equal(loss.call(LABELS[:, None], LOGITS), loss.call(LABELS, LOGITS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_one_hot_labels_give_the_loss_of_their_indices(name, smoothing):
    loss = make_loss(name, label_smoothing=smoothing)
    np.testing.assert_allclose(loss.call(ONE_HOT, LOGITS), loss.call(LABELS, LOGITS), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loss(ONE_HOT, LOGITS), loss(LABELS, LOGITS), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_mixed_label_costs_the_mean_of_its_classes(name, smoothing):
    loss = make_loss(name, label_smoothing=smoothing)
    others = np.roll(LABELS, 1)
    mixed = 0.7 * ONE_HOT + 0.3 * ONE_HOT[np.arange(-1, 31)]
    expected = 0.7 * loss.call(LABELS, LOGITS) + 0.3 * loss.call(others, LOGITS)
    np.testing.assert_allclose(loss.call(mixed, LOGITS), expected, rtol=1e-4)


def test_distributions_over_two_classes_are_not_indices():
    loss = make_loss("cross_entropy")
    labels, logits = np.array([0, 1, 1]), LOGITS[:3, :2]
    np.testing.assert_allclose(
        loss.call(np.eye(2)[labels], logits), loss.call(labels[:, None], logits), rtol=1e-6
    )


def test_weights_of_rows_count():
    loss, weights = make_loss("cross_entropy"), np.arange(32, dtype=np.float32)
    expected = (loss.call(LABELS, LOGITS).numpy() * weights).mean()
    np.testing.assert_allclose(loss(LABELS, LOGITS, sample_weight=weights), expected, rtol=1e-6)


def test_the_configuration_rebuilds_an_equal_loss():
    loss = make_loss("focal", focal_gamma=1.5, label_smoothing=0.2)
    twin = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(twin, ClassificationLoss)
    np.testing.assert_array_equal(twin(LABELS, LOGITS), loss(LABELS, LOGITS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "focall"}, "did you mean 'focal'"),
        ({"loss": "focal", "focal_gamma": -1.0}, "focal_gamma = -1.0"),
        ({"loss": "focal", "focal_gamma": float("nan")}, "focal_gamma = nan"),
        ({"loss": "cross_entropy", "label_smoothing": 1.0}, "label_smoothing = 1.0"),
        ({"loss": "cross_entropy", "label_smoothing": -0.1}, "label_smoothing = -0.1"),
    ],
)
def test_unknown_names_and_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(**arguments)
