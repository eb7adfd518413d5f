"""Adversarial examples within a `tf.data` pipeline: which rows, against which weights, and how old."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfapp
from tfapp.attacks import ATTACKS, make_attack
from tfapp.data.augment import with_adversarial
from tfapp.errors import ConfigError
from tfapp.objectives.standard import Standard
from tfapp.training.trainer import TrainingModel

ROWS, CLASSES = 24, 3
fgsm, pgd, embedding_fgm = (ATTACKS[name] for name in ("fgsm", "pgd", "embedding_fgm"))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(40, 200, (ROWS, 4, 4, 3)).astype(np.uint8), np.arange(ROWS, dtype=np.int32) % CLASSES


@pytest.fixture
def classifier():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(CLASSES)(features))


def batches(*arrays, size=8):
    return tf.data.Dataset.from_tensor_slices(arrays).cache().batch(size)


def logits_of(model):
    return lambda inputs: model(inputs, training=False)


def moved(model_fn, inputs, labels, *, seed):
    """An attack that is easy to recognise."""
    return inputs + 1.0


def column(dataset):
    return np.concatenate([np.asarray(element[0]).reshape(len(element[0]), -1)[:, 0] for element in dataset])


def test_examples_are_those_of_the_attack_against_the_weights_of_the_moment(images, classifier):
    pixels, labels = images
    dataset = with_adversarial(
        batches(pixels, labels), partial(fgsm, epsilon=4 / 255), logits_of(classifier), fraction=1.0
    )
    seen = []
    for turn in range(2):
        classifier.layers[-1].kernel.assign(np.random.default_rng(turn).normal(size=(48, CLASSES)))
        found = np.concatenate([inputs for inputs, _ in dataset])
        direct = fgsm(logits_of(classifier), pixels.astype(np.float32), labels, epsilon=4 / 255)
        np.testing.assert_array_equal(found, direct)
        seen.append(found)
    assert (seen[0] != seen[1]).any()
    assert np.abs(seen[0] - pixels).max() == 4.0


def test_labels_and_weights_stay_and_uint8_becomes_float32(images, classifier):
    pixels, labels = images
    weights = np.linspace(0.5, 2.0, ROWS, dtype=np.float32)
    dataset = with_adversarial(
        batches(pixels, labels, weights), partial(pgd, num_steps=2), logits_of(classifier), fraction=0.5
    )
    assert dataset.element_spec[0] == tf.TensorSpec((None, 4, 4, 3), tf.float32)
    assert dataset.cardinality() == ROWS // 8
    found = list(dataset.prefetch(1))
    np.testing.assert_array_equal(np.concatenate([row[1] for row in found]), labels)
    np.testing.assert_array_equal(np.concatenate([row[2] for row in found]), weights)


def test_the_seed_draws_the_rows_anew_in_every_iteration(images):
    values = np.zeros((400, 2), np.float32)
    labels = np.zeros(400, np.int32)

    def make(seed):
        return with_adversarial(batches(values, labels), moved, None, fraction=0.3, seed=seed)

    first, again, other = make(1), make(1), make(2)
    epochs = [column(first) for _ in range(6)]
    for epoch in epochs:
        np.testing.assert_array_equal(column(again), epoch)
    assert len({epoch.tobytes() for epoch in epochs}) == 6
    assert (column(other) != epochs[0]).any()
    # Each batch of 8 has 2 or 3: 50 batches give 120 rows, with a standard deviation of 3.5.
    assert all(abs(epoch.sum() - 120) < 15 for epoch in epochs)
    assert np.mean([np.mean(epoch) for epoch in epochs]) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_all_rows_or_none(fraction):
    values, labels = np.zeros((20, 2), np.float32), np.zeros(20, np.int32)
    dataset = with_adversarial(batches(values, labels), moved, None, fraction=fraction)
    assert (column(dataset) == fraction).all()


def test_a_frozen_set_stays_what_it_was_when_it_was_made(images, classifier):
    pixels, labels = images
    attack = partial(pgd, num_steps=2, epsilon=8 / 255)
    settings = {"fraction": 0.5, "refresh": "never", "seed": 4}
    frozen = with_adversarial(batches(pixels, labels), attack, logits_of(classifier), **settings)
    twin = with_adversarial(batches(pixels, labels), attack, logits_of(classifier), **settings)
    classifier.layers[-1].kernel.assign(-classifier.layers[-1].kernel)
    first, second, third = (np.concatenate([row[0] for row in each]) for each in (frozen, frozen, twin))
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(third, first)
    changed = np.abs(first - pixels).max(axis=(1, 2, 3))
    assert np.count_nonzero(changed) == ROWS // 2
    shuffled = frozen.unbatch().shuffle(ROWS, seed=0).batch(5)
    assert sorted(column(shuffled)) == sorted(column(frozen))


def test_embeddings_with_a_mask():
    rng = np.random.default_rng(0)
    inputs = {
        "embeddings": rng.normal(size=(12, 5, 4)).astype(np.float32),
        "mask": (np.arange(5) < rng.integers(2, 6, 12)[:, None]).astype(np.int32),
    }
    labels = np.arange(12, dtype=np.int32) % CLASSES
    kernel = tf.constant(rng.normal(size=(4, CLASSES)), tf.float32)

    def attack(model_fn, given, labels, *, seed):
        mask = given["mask"]

        def logits(embeddings):
            return model_fn({"embeddings": embeddings, "mask": mask})

        found = embedding_fgm(logits, given["embeddings"], labels, mask=mask, epsilon=0.5, seed=seed)
        return {"embeddings": found, "mask": mask}

    def model_fn(given):
        return tf.reduce_sum(given["embeddings"] * tf.cast(given["mask"], tf.float32)[..., None], 1) @ kernel

    (found, _), *rest = with_adversarial(batches(inputs, labels, size=12), attack, model_fn, fraction=1.0)
    assert not rest
    np.testing.assert_array_equal(found["mask"], inputs["mask"])
    differences = found["embeddings"].numpy() - inputs["embeddings"]
    present = inputs["mask"].astype(bool)
    assert (differences[~present] == 0.0).all()
    norms = [np.linalg.norm(inputs["embeddings"][row][present[row]]) for row in range(12)]
    np.testing.assert_allclose(np.linalg.norm(differences, axis=(1, 2)), 0.5 * np.array(norms), rtol=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_strings_are_attacked_in_python(wrapped):
    texts = np.array(["gut", "schön", "好", "bad \udcff".encode("utf-8", "surrogateescape")], object)
    labels = np.array([0, 1, 2, 0], np.int32)
    calls = []

    def attack(predict_fn, texts, labels, *, seed):
        calls.append((texts, labels.tolist(), seed))
        found = [f"{text}!" for text in texts]
        return SimpleNamespace(texts=found) if wrapped else found

    dataset = with_adversarial(
        tf.data.Dataset.from_tensor_slices((texts, labels)).batch(2), attack, len, fraction=0.5, seed=1
    )
    found = [text for strings, _ in dataset for text in strings.numpy()]
    expected = [text if isinstance(text, bytes) else text.encode() for text in texts]
    assert [text.removesuffix(b"!") for text in found] == expected
    assert sum(text.endswith(b"!") for text in found) == 2
    first = [text for call in calls for text in call[0]]
    assert all(isinstance(text, str) for text in first)
    assert len({seed for _, _, seed in calls}) == 2
    repeated = [text for strings, _ in dataset for text in strings.numpy()]
    assert sum(text.endswith(b"!") for text in repeated) == 2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "gave NoneType for 2 texts"),
        ("ab", "gave str for 2 texts"),
        (["one"], "gave a list of 1 for 2 texts"),
        (["one", None], r"gave a list of 2 with \['NoneType'\] for 2 texts"),
        ([b"one", b"two"], r"gave a list of 2 with \['bytes'\] for 2 texts"),
        (SimpleNamespace(texts=["one"]), "gave a list of 1 for 2 texts"),
    ],
)
def test_an_attack_that_does_not_give_a_text_for_each_is_named(found, message):
    texts = tf.data.Dataset.from_tensor_slices((["gut", "bad"], [0, 1])).batch(2)
    dataset = with_adversarial(texts, lambda *_, seed: found, len, fraction=1.0)
    with pytest.raises(tf.errors.OpError, match=f"the attack {message}: it must return one text"):
        next(iter(dataset))


@pytest.mark.parametrize(
    ("low", "high", "bounds", "right"),
    [
        (-1.0, 1.0, None, False),
        (-1.0, 1.0, (0.0, 1.0), False),
        (0.0, 255.0, (0.0, 1.0), False),
        (np.nan, np.nan, None, False),
        (-1.0, 1.0, (-1.0, 1.0), True),
        (0.0, 255.0, None, True),
        (0.0, 1.0, [0, 1], True),
    ],
)
def test_images_outside_the_bounds_of_the_attack_are_refused(classifier, low, high, bounds, right):
    ends = np.stack([np.full((4, 4, 3), low, np.float32), np.full((4, 4, 3), high, np.float32)])
    attack = partial(fgsm, epsilon=0.1) if bounds is None else partial(fgsm, epsilon=0.1, bounds=bounds)
    dataset = with_adversarial(
        batches(ends, np.zeros(2, np.int32)), attack, logits_of(classifier), fraction=0.01
    )
    if right:
        assert len(list(dataset)) == 1
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="bind the bounds of what the model takes"):
        next(iter(dataset))


def test_uint8_images_go_with_bounds_of_grey_levels_alone(images, classifier):
    attack = make_attack("fgsm", bounds=(0.0, 1.0))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"bounds = \(0\.0, 1\.0\)"):
        with_adversarial(batches(*images), attack, logits_of(classifier), fraction=0.5, refresh="never")


class Counting(keras.Model):
    """Adds 1 to its only weight in every step, and notes how many steps ago each step's input was made."""

    def __init__(self):
        super().__init__()
        inputs = keras.Input((1,))
        self.network = keras.Model(
            inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
        )
        self.ages = tf.Variable(tf.zeros(64))
        self.built = True

    def train_step(self, data):
        made_at, _ = data
        (weight,) = self.network.trainable_variables
        with tf.GradientTape() as tape:
            value = tf.convert_to_tensor(weight)
            loss = -tf.reduce_sum(value) * tf.reduce_mean(made_at * 0.0 + 1.0)
        step = value[0, 0]
        self.ages.scatter_nd_update([[tf.cast(step, tf.int32)]], [step - made_at[0, 0]])
        self.optimizer.apply(tape.gradient(loss, [weight]), [weight])
        return {"step": step}


@pytest.mark.parametrize(
    ("ahead", "steps_together", "oldest"), [(0, 1, 0), (1, 1, 1), (3, 1, 3), (0, 5, 1), (2, 10, 3)]
)
def test_in_fit_examples_are_as_old_as_is_said_and_not_older(ahead, steps_together, oldest):
    model = Counting()

    def attack(model_fn, inputs, labels, *, seed):
        return inputs * 0.0 + model_fn(inputs * 0.0 + 1.0)

    values, labels = np.zeros((40, 1), np.float32), np.zeros(40, np.int32)
    dataset = with_adversarial(batches(values, labels, size=2), attack, model.network, fraction=1.0)
    model.compile(optimizer=keras.optimizers.SGD(1.0), steps_per_execution=steps_together)
    model.fit(dataset.prefetch(ahead) if ahead else dataset, verbose=0, shuffle=False)
    assert model.network.trainable_variables[0].numpy() == 20.0
    assert model.ages.numpy().min() >= 0.0
    assert model.ages.numpy().max() <= oldest


def test_in_our_own_step_weight_decay_waits_for_the_attack():
    inputs = keras.Input((4,))
    network = keras.Model(inputs, keras.layers.Dense(CLASSES)(inputs))
    made, before = [], []

    def mark():
        return tf.reshape(tf.convert_to_tensor(network.trainable_variables[0]), [-1])[0]

    def attack(model_fn, given, labels, *, seed):
        with tf.control_dependencies([tf.py_function(lambda value: made.append(float(value)), [mark()], [])]):
            return tf.identity(given)

    values = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    dataset = with_adversarial(
        batches(values, np.arange(120, dtype=np.int32) % CLASSES, size=4), attack, None, fraction=1.0
    )
    trainer = TrainingModel(network, objective=Standard())
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    trainer.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(trainer.trainable_variables)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: before.append(float(mark()))
    )
    trainer.fit(dataset, verbose=0, shuffle=False, callbacks=[note])
    assert len(set(before)) == 30
    assert made == before


def test_training_without_prefetch_is_repeatable_bit_by_bit(images):
    def trained():
        keras.utils.set_random_seed(3)
        inputs = keras.Input((4, 4, 3))
        hidden = keras.layers.Dense(8, "relu")(keras.layers.Flatten()(inputs))
        model = keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        dataset = with_adversarial(
            batches(*images), partial(pgd, num_steps=2), logits_of(model), fraction=0.5, seed=9
        )
        losses = model.fit(dataset, epochs=3, verbose=0, shuffle=False).history["loss"]
        return losses, model.get_weights()

    (losses, weights), (others, other_weights) = trained(), trained()
    assert losses == others
    for left, right in zip(weights, other_weights, strict=True):
        np.testing.assert_array_equal(left, right)


MIRRORED = """
import keras, numpy as np, tensorflow as tf
from functools import partial
from tfapp.attacks import ATTACKS
from tfapp.data.augment import with_adversarial

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
images = np.random.default_rng(0).uniform(0, 255, (16, 4, 4, 3)).astype(np.float32)
labels = np.arange(16, dtype=np.int32) % 3
data = tf.data.Dataset.from_tensor_slices((images, labels)).cache().batch(4)

def fit(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        pixels = keras.Input((4, 4, 3))
        scaled = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
        model = keras.Model(pixels, keras.layers.Dense(3)(scaled))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(RATE), loss)
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        attack = partial(ATTACKS["fgsm"], epsilon=8 / 255)
        target = twin if RATE else model
        adversarial = with_adversarial(data, attack, lambda x: target(x, training=False), fraction=1.0)
    history = model.fit(adversarial, epochs=1, verbose=0, shuffle=False)
    return history.history["loss"], model.get_weights()

for RATE in (0.0, 0.1):
    alone = fit(tf.distribute.get_strategy())
    both = fit(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-5)
    for left, right in zip(both[1], alone[1]):
        np.testing.assert_allclose(left, right, atol=1e-5)
print("replicas agree")
"""


def test_two_replicas_train_on_the_same_examples_as_one():
    # Weights that stand still, then a target that does: here examples are up to two steps old.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    root = str(Path(tfapp.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", MIRRORED], capture_output=True, text=True, env=environment, check=False
    )
    assert "replicas agree" in ran.stdout, ran.stderr[-3000:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fraction": 1.5}, "fraction = 1.5"),
        ({"fraction": "half"}, "fraction = 'half'"),
        ({"refresh": "epochs"}, "epoch"),
        ({"seed": -1}, "seed = -1"),
        ({"dataset": lambda data: data.unbatch()}, r"not batched.*\.batch"),
        ({"dataset": lambda data: data.map(lambda inputs, labels: inputs)}, "inputs, labels"),
        ({"dataset": lambda data: data.repeat(), "refresh": "never"}, r"no end.*\.take"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_cure(images, change, message):
    pixels, labels = images
    settings = {"fraction": 0.5, "refresh": "epoch", **change}
    dataset = settings.pop("dataset", lambda data: data)(batches(pixels, labels))
    with pytest.raises(ConfigError, match=message):
        with_adversarial(dataset, moved, None, **settings)


def test_single_rows_with_distributions_as_labels_are_refused(images):
    pixels, labels = images
    rows = tf.data.Dataset.from_tensor_slices((pixels, np.eye(CLASSES, dtype=np.float32)[labels]))
    with pytest.raises(ConfigError, match="not batched"):
        with_adversarial(rows, moved, None, fraction=0.5)
    assert with_adversarial(rows.batch(4), moved, None, fraction=0.5)
