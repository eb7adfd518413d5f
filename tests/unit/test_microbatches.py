"""Steps computed in parts: the gradients, losses and metrics of the undivided step, in less memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.objectives import _smoothness, make_objective
from tfapp.objectives._perturbation import towards
from tfapp.training.losses import make_loss
from tfapp.training.metrics import Accuracy
from tfapp.training.microbatches import check_divisible
from tfapp.training.perturbing import make_perturbing
from tfapp.training.trainer import TrainingModel

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from two_devices import SETTINGS, make_image_model, make_text_model

ROWS = 7
DRAW = np.random.default_rng(3)
LABELS = DRAW.integers(0, 3, ROWS).astype(np.int32)
WEIGHTS = DRAW.uniform(0.0, 2.0, ROWS).astype(np.float32)
LENGTHS = DRAW.integers(4, 10, ROWS)
VARIANTS = 3
PERTURBING = ("fgm", "freelb", "smart", "vat", "adversarial", "trades", "mart")
CASES = [
    ("words", "standard"),
    ("words", "word_augmented"),
    *(("features", name) for name in PERTURBING),
    ("text", "fgm"),
    *(
        pytest.param("text", name, marks=pytest.mark.slow)
        for name in ("adversarial", "freelb", "smart", "vat")
    ),
    *(pytest.param("image", name, marks=pytest.mark.slow) for name in ("adversarial", "trades", "mart")),
]


def texts(shape, lengths):
    mask = (np.arange(shape[-1]) < lengths[..., np.newaxis]).astype(np.int32)
    ids = DRAW.integers(5, 21, shape).astype(np.int32) * mask
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}


TEXTS = texts((ROWS, 9), LENGTHS)
CHANGED = texts((ROWS, VARIANTS, 9), np.repeat(LENGTHS[:, np.newaxis], VARIANTS, axis=1))
INPUTS = {
    "text": TEXTS,
    "words": {**TEXTS, "variants": CHANGED},
    "image": {"pixels": DRAW.integers(0, 256, (ROWS, 32, 32, 3)).astype(np.float32)},
    "features": {"features": DRAW.normal(size=(ROWS, 6)).astype(np.float32)},
}


def make_words_model():
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in TEXTS}
    embedded = keras.layers.Embedding(21, 8)(inputs["token_ids"])
    features = keras.layers.Dense(8, activation="tanh")(keras.layers.GlobalAveragePooling1D()(embedded))
    return keras.Model(inputs, keras.layers.Dense(3)(features))


def make_features_model():
    features = keras.Input((6,), name="features")
    hidden = keras.layers.Dense(8, activation="tanh")(features)
    return keras.Model({"features": features}, keras.layers.Dense(3)(hidden))


MODELS = {
    "text": make_text_model,
    "words": make_words_model,
    "image": make_image_model,
    "features": make_features_model,
}


@pytest.fixture(autouse=True)
def one_start(monkeypatch):
    """SMART and VAT begin at random: here all rows, whatever part they are in, begin in one direction."""

    def same(place, radius, seed):
        drawn = tf.random.stateless_normal(tf.shape(place.values[:1]), [1, 2])
        return towards(place, drawn * tf.ones_like(place.values), radius)

    monkeypatch.setattr(_smoothness, "noise", same)


def make_trainer(model, objective, parts, **options):
    perturbing = None
    if isinstance(model, Classifier):
        perturbing = make_perturbing(model, "all", objective, fused=None, precision="float32")
    trainer = TrainingModel(
        model, objective=objective, perturbing=perturbing, num_microbatches=parts, **options
    )
    trainer.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=make_loss("cross_entropy"),
        metrics=[Accuracy()],
        jit_compile=False,
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def stepped(make_model, objective, parts, batch, **options):
    """The weights after one step, and what it logged."""
    keras.utils.set_random_seed(0)
    model = make_model()
    trainer = make_trainer(model, objective, parts, **options)
    rows = len(batch[1])
    logs = trainer.fit(tf.data.Dataset.from_tensor_slices(batch).batch(rows), verbose=0).history
    return model.get_weights(), logs


def farthest(ones, others):
    return max(np.abs(one - other).max() for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_parts_learn_what_the_whole_batch_learns(kind, name):
    settings = {"variants": VARIANTS} if name == "word_augmented" else SETTINGS[name]
    objective = make_objective(name, **settings)
    inputs = TEXTS if name == "standard" else INPUTS[kind]
    batch = (inputs, LABELS, WEIGHTS)
    (whole, logs), (parts, part_logs) = (stepped(MODELS[kind], objective, n, batch) for n in (1, 3))
    # A step moves weights by a tenth of the gradient, whose sum in another order differs by some 1e-7.
    assert farthest(whole, parts) <= 1e-6
    assert part_logs["loss"] == pytest.approx(logs["loss"], abs=1e-5)
    assert part_logs["accuracy"] == pytest.approx(logs["accuracy"])


def joint_model():
    inputs = keras.Input((4,), name="features")
    penalty = keras.regularizers.L2(0.1)
    return keras.Model({"features": inputs}, keras.layers.Dense(5, kernel_regularizer=penalty)(inputs))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("target", "parts"), [(5, 2), (5, 4), (6, 7), (1, 3)])
def test_each_task_keeps_its_own_mean(target, parts, soft):
    features = DRAW.normal(size=(ROWS, 4)).astype(np.float32)
    labels = np.where(np.arange(ROWS) < target, LABELS, 3 + LABELS % 2).astype(np.int32)
    if soft:
        labels = np.eye(5, dtype=np.float32)[labels]
    inputs = keras.Input((4,))
    answers = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    batch = ({"features": features}, labels, WEIGHTS)
    (whole, logs), (part, part_logs) = (
        stepped(joint_model, make_objective("joint", alpha=0.7), n, batch, answers=answers)
        for n in (1, parts)
    )
    assert farthest(whole, part) <= 1e-6
    assert part_logs["loss"] == pytest.approx(logs["loss"], abs=1e-5)
    assert part_logs["accuracy"] == pytest.approx(logs["accuracy"])


def test_more_parts_than_rows_are_as_many_parts_as_rows():
    batch = (TEXTS, LABELS)
    (whole, _), (parts, _) = (
        stepped(make_words_model, make_objective("standard"), n, batch) for n in (1, 40)
    )
    assert farthest(whole, parts) <= 1e-6


def test_an_embedding_row_that_no_part_uses_has_no_gradient():
    trainer = make_trainer(make_words_model(), make_objective("standard"), 3)
    seen = []
    trainer.apply_gradients = seen.extend
    trainer.train_step((TEXTS, tf.constant(LABELS)))
    sparse = [gradient for gradient in seen if isinstance(gradient, tf.IndexedSlices)]
    assert sparse
    assert set(sparse[0].indices.numpy()) == set(TEXTS["token_ids"].ravel())


def test_parts_draw_unlike_starts():
    seeds = []

    class Drawing:
        name = "drawing"

        def step(self, model, inputs, labels, sample_weight):
            seeds.append(tuple(model.step_seed().numpy()))
            return make_objective("standard").step(model, inputs, labels, sample_weight)

    trainer = make_trainer(make_words_model(), Drawing(), 3)
    trainer.train_step((TEXTS, tf.constant(LABELS)))
    assert len(set(seeds)) == 3


def test_trained_batch_norm_sees_parts():
    def make_model():
        return make_image_model(normalised=True)

    batch = (INPUTS["image"], LABELS)
    (whole, _), (parts, _) = (stepped(make_model, make_objective("standard"), n, batch) for n in (1, 2))
    assert farthest(whole, parts) > 1e-4


def test_an_objective_of_several_updates_cannot_be_divided():
    with pytest.raises(ConfigError, match="'free' takes several optimizer steps on each batch"):
        check_divisible(2, make_objective("free"))
    check_divisible(2, make_objective("free", replays=1))
    check_divisible(1, make_objective("free"))


PEAK = """
import json, sys
import keras, numpy as np, tensorflow as tf
from tfapp.objectives import make_objective
from tfapp.training.losses import make_loss
from tfapp.training.trainer import TrainingModel

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

pixels = keras.Input((128, 128, 3), name="pixels")
hidden = pixels
for _ in range(5):
    hidden = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(hidden)
features = keras.layers.GlobalAveragePooling2D()(hidden)
network = keras.Model({"pixels": pixels}, keras.layers.Dense(3)(features))
trainer = TrainingModel(network, objective=make_objective("standard"), num_microbatches=int(sys.argv[1]))
trainer.compile(optimizer=keras.optimizers.SGD(0.1), loss=make_loss("cross_entropy"), jit_compile=False)
draw = np.random.default_rng(0)
rows = lambda count: ({"pixels": draw.random((count, 128, 128, 3), np.float32)}, np.zeros(count, np.int32))
trainer.fit(tf.data.Dataset.from_tensors(rows(2)), verbose=0)
before = peak()
trainer.fit(tf.data.Dataset.from_tensors(rows(64)), verbose=0)
print(json.dumps(peak() - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_only_one_part_is_in_memory():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    whole, parts = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(count)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout.splitlines()[-1]
        )
        for count in (1, 16)
    )
    # Five layers of 64 x 128 x 128 x 16 float32 are 336 MB; a sixteenth of them, and the batch, 34 MB.
    assert whole > 300_000
    assert parts < 0.35 * whole
