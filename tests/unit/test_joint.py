"""The joint objective: its gradients, its weight over a phase, and what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.objectives.joint import Joint
from tfapp.objectives.standard import Standard
from tfapp.training.losses import make_loss
from tfapp.training.trainer import TrainingModel

OWN, OTHERS, TARGET_ROWS, SOURCE_ROWS = 3, 4, 5, 7
GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(TARGET_ROWS + SOURCE_ROWS, 6)).astype(np.float32)
LABELS = np.concatenate(
    [GENERATOR.integers(0, OWN, TARGET_ROWS), OWN + GENERATOR.integers(0, OTHERS, SOURCE_ROWS)]
).astype(np.int32)
WEIGHTS = GENERATOR.uniform(0.5, 2.0, len(LABELS)).astype(np.float32)


def make_trainer(objective, *, loss=None, total_steps=10, regularizer=None):
    """A layer that both tasks share, and their heads on it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(8, activation="tanh", name="shared", kernel_regularizer=regularizer)(inputs)
    target = keras.layers.Dense(OWN, name="target")(shared)
    source = keras.layers.Dense(OTHERS, name="source")(shared)
    answers = keras.Model(inputs, target)
    network = keras.Model(inputs, keras.ops.concatenate([target, source], axis=1))
    trainer = TrainingModel(network, objective=objective, answers=answers, total_steps=total_steps)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    trainer.compile(optimizer="sgd", loss=loss or make_loss("cross_entropy"), metrics=[accuracy])
    return trainer


def by_hand(trainer, loss, alpha, weights):
    """The joint loss and its gradients, written out."""
    hidden, target, source = (trainer.network.get_layer(name) for name in ("shared", "target", "source"))
    with tf.GradientTape() as tape:
        features = hidden(FEATURES)
        of_target = loss.call(LABELS[:TARGET_ROWS], target(features[:TARGET_ROWS]))
        of_source = loss.call(LABELS[TARGET_ROWS:] - OWN, source(features[TARGET_ROWS:]))
        total = tf.reduce_mean(of_target * weights[:TARGET_ROWS])
        total += alpha * tf.reduce_mean(of_source * weights[TARGET_ROWS:])
    return total, tape.gradient(total, [v.value for v in trainer.trainable_variables])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}])
def test_gradients_are_those_of_the_sum(options, weighted):
    name = "focal" if "focal_gamma" in options else "cross_entropy"
    loss = make_loss(name, **options)
    trainer = make_trainer(Joint(0.3), loss=loss)
    weights = WEIGHTS if weighted else np.ones_like(WEIGHTS)
    given = tf.constant(WEIGHTS) if weighted else None
    result = trainer.objective.step(trainer, tf.constant(FEATURES), tf.constant(LABELS), given)
    expected, gradients = by_hand(trainer, loss, 0.3, weights)
    assert float(result.loss) == pytest.approx(float(expected), rel=1e-6)
    for ours, theirs in zip(result.gradients, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert np.abs(gradients[-1]).max() > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.3, 2.0])
def test_a_regulariser_is_counted_once(alpha):
    def step(regularizer):
        trainer = make_trainer(Joint(alpha), regularizer=regularizer)
        result = trainer.objective.step(trainer, tf.constant(FEATURES), tf.constant(LABELS), None)
        return trainer, float(result.loss), [gradient.numpy() for gradient in result.gradients]

    _, plain, without = step(None)
    trainer, regularised, gradients = step(keras.regularizers.L2(0.5))
    kernel = trainer.network.get_layer("shared").kernel.numpy()
    assert regularised - plain == pytest.approx(0.5 * float(np.sum(kernel**2)), rel=1e-5)
    np.testing.assert_allclose(gradients[0] - without[0], kernel, rtol=1e-4, atol=1e-6)


def test_labels_may_be_distributions():
    trainer = make_trainer(Joint(0.3))
    steps = [
        trainer.objective.step(trainer, tf.constant(FEATURES), tf.constant(labels), None)
        for labels in (LABELS, np.eye(OWN + OTHERS, dtype=np.float32)[LABELS])
    ]
    for ours, theirs in zip(steps[0].gradients, steps[1].gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert steps[1].labels.shape == (TARGET_ROWS, OWN)


def test_without_weight_the_source_changes_nothing():
    joint, alone = make_trainer(Joint(0.0)), make_trainer(Standard())
    alone.network = alone.answers
    rows = slice(0, TARGET_ROWS)
    for _ in range(3):
        joint.train_step((tf.constant(FEATURES), tf.constant(LABELS)))
        alone.train_step((tf.constant(FEATURES[rows]), tf.constant(LABELS[rows])))
    for one, other in zip(joint.answers.get_weights(), alone.answers.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_log_counts_the_targets_rows_only():
    trainer = make_trainer(Joint(1.0))
    right = trainer.answers(FEATURES).numpy().argmax(axis=1)[:TARGET_ROWS] == LABELS[:TARGET_ROWS]
    logs = trainer.train_step((tf.constant(FEATURES), tf.constant(LABELS)))
    assert float(logs["accuracy"]) == pytest.approx(right.mean())


def test_in_inference_the_target_answers_alone():
    trainer = make_trainer(Joint(1.0))
    np.testing.assert_array_equal(trainer(FEATURES, training=False), trainer.answers(FEATURES))
    assert trainer(FEATURES, training=True).shape == (len(FEATURES), OWN + OTHERS)
    assert trainer.num_classes == OWN


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("constant", [2, 2, 2, 2]), ("linear", [2, 1.5, 1, 0]), ("cosine", [2, 1 + 0.5**0.5, 1, 0])],
)
def test_the_weight_over_a_phase(schedule, values):
    objective = Joint(2.0, schedule)
    given = [float(objective.alpha_at(tf.constant(done))) for done in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(given, values, atol=1e-6)


def test_progress_is_the_share_of_steps_done():
    trainer = make_trainer(Joint(1.0), total_steps=4)
    assert float(trainer.progress) == 0.0
    trainer.train_step((tf.constant(FEATURES), tf.constant(LABELS)))
    assert float(trainer.progress) == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "alpha = -1.0"),
        ({"alpha": float("nan")}, "alpha = nan"),
        ({"alpha_schedule": "linaer"}, "did you mean 'linear'"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Joint(**arguments)
