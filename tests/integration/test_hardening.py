"""Objectives that perturb in whole training runs: places, forward passes, resumption, two devices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.image import load_image_data
from tfapp.data.text import TextData, load_text_data
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError
from tfapp.models import build_image_classifier, build_text_classifier
from tfapp.models.encoders import split_at_embeddings
from tfapp.models.folded import folded_inference
from tfapp.models.fused import fused_parts
from tfapp.objectives import OBJECTIVES, make_objective
from tfapp.training import Phase, train
from tfapp.training.losses import make_loss
from tfapp.training.perturbing import make_perturbing
from tfapp.training.trainer import TrainingModel

PERTURBING = [name for name, make in OBJECTIVES.items() if getattr(make, "perturbs", False)]
WORDS = {"sport": "team goal match coach", "tech": "computer network phone software"}


@pytest.fixture(scope="module")
def data() -> TextData:
    draw = np.random.default_rng(0)
    labels = [sorted(WORDS)[row % 2] for row in range(40)]
    texts = [
        " ".join([*draw.choice(WORDS[label].split(), 3), *draw.choice(["the", "a", "new"], 2), str(row % 10)])
        for row, label in enumerate(labels)
    ]
    return load_text_data((texts, labels), seed=0)


@pytest.fixture(scope="module")
def make_model(tiny_vocab):
    def make(dropout=0.1):
        keras.utils.set_random_seed(0)
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=len(tiny_vocab),
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            dropout=dropout,
            max_sequence_length=32,
        )
        return build_text_classifier(
            backbone,
            classes=tuple(WORDS),
            pooling="mean",
            tokenizer=WordPieceTokenizer(tiny_vocab, max_length=16),
            dropout_rate=dropout,
        )

    return make


@pytest.fixture
def unfused(monkeypatch):
    """Training on Keras's own pass, as on a GPU."""
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)


def run(model, data, **options):
    options = {"batch_size": 8, "precision": "float32", "verbose": False, **options}
    return train(model, data, **options)


def assert_trained(name, model, data, train_what):
    before = model.get_weights()
    phases = [Phase(train_what, epochs=1, learning_rate=1e-3)]
    history = run(model, data, phases=phases, objective=name, class_weight="balanced", keep_best=False)
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["val_loss"]) for row in history.epochs)
    return [np.abs(one - other).max() > 0 for one, other in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize("name", ["fgm", "trades"])
def test_embeddings_are_perturbed_and_all_of_the_model_is_trained(name, make_model, data, unfused):
    assert all(assert_trained(name, make_model(), data, "all"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PERTURBING if name not in ("fgm", "trades")])
def test_so_it_is_with_every_objective(name, make_model, data, unfused):
    assert all(assert_trained(name, make_model(), data, "all"))


@pytest.mark.parametrize("name", ["adversarial", "freelb"])
def test_above_a_frozen_backbone_its_cached_features_are_perturbed(name, make_model, data, unfused):
    changed = assert_trained(name, make_model(), data, "head")
    assert changed[-2:] == [True, True]
    assert not any(changed[:-2])


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"])
def test_the_fused_pass_trains_with_perturbations(precision, make_model, data):
    phases = [Phase(1, epochs=1, learning_rate=1e-3), Phase("all", epochs=2, learning_rate=1e-3)]
    history = run(make_model(), data, phases=phases, objective="fgm", precision=precision)
    assert all(np.isfinite(row["loss"]) for row in history.epochs)


def test_both_forward_passes_give_the_same_gradients(make_model, data):
    model = make_model(dropout=0.0)
    encoded = model.preprocessor.encode(data.train.texts[:6])
    inputs = model.preprocessor.make_rows(encoded, inputs=tuple(model.input)).gather(tf.range(6))
    objective, found = make_objective("fgm", epsilon=0.3), []
    fused = fused_parts(model, "all", precision="float32", generator=keras.random.SeedGenerator(0))
    for parts in (fused, None):
        trainer = TrainingModel(
            model,
            objective=objective,
            forward=parts.upper if parts else None,
            perturbing=make_perturbing(model, "all", objective, fused=parts, precision="float32"),
        )
        trainer.compile(optimizer="sgd", loss=make_loss("cross_entropy"))
        trainer.optimizer.build(trainer.trainable_variables)
        found.append(objective.step(trainer, inputs, tf.constant(data.train.labels[:6]), None))
    assert float(found[0].loss) == pytest.approx(float(found[1].loss), rel=1e-4)
    for one, other in zip(found[0].gradients, found[1].gradients, strict=True):
        # The fused kernels sum in another order.
        np.testing.assert_allclose(
            tf.convert_to_tensor(one), tf.convert_to_tensor(other), rtol=2e-3, atol=2e-5
        )


class Stopped(Exception):  # noqa: N818 - a stop, not an error
    """Stands for a process that was killed."""


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise Stopped


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adversarial", {"num_steps": 2}),
        pytest.param("free", {"replays": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(
    name, settings, make_model, data, tmp_path, unfused
):
    options = {
        "phases": [Phase("head", epochs=2, learning_rate=0.02)],
        "objective": make_objective(name, **settings),
    }
    unbroken, resumed = make_model(), make_model()
    whole = run(unbroken, data, **options)
    with pytest.raises(Stopped):
        run(make_model(), data, run_dir=tmp_path, callbacks=[Stop()], **options)
    history = run(resumed, data, run_dir=tmp_path, **options)
    assert [row["loss"] for row in history.epochs] == [row["loss"] for row in whole.epochs]
    for one, other in zip(unbroken.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_radius_is_another_run(make_model, data, tmp_path, unfused):
    phases = [Phase("head", epochs=1, learning_rate=0.02)]
    losses = [
        run(
            make_model(),
            data,
            run_dir=tmp_path,
            phases=phases,
            objective=make_objective("adversarial", epsilon=epsilon, random_start=False),
        ).epochs[0]["loss"]
        for epsilon in (0.1, 0.5)
    ]
    assert losses[0] < losses[1]


def test_embeddings_and_the_rest_are_the_model(make_model, data):
    model = make_model()
    embed, rest = split_at_embeddings(model)
    rows = model.preprocessor.make_rows(
        model.preprocessor.encode(data.train.texts[:5]), inputs=tuple(model.input)
    )
    inputs = rows.gather(tf.range(5))
    np.testing.assert_array_equal(rest({"token_embeddings": embed(inputs), **inputs}), model(inputs))
    assert [v.path for v in embed.variables] == ["token_embedding/embeddings"]


def test_a_graph_without_an_embedding_layer_is_refused(tiny_vocab):
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    one_hot = keras.ops.one_hot(ids, len(tiny_vocab))
    hidden = keras.layers.Dense(8)(one_hot)
    model = build_text_classifier(
        keras.Model({"token_ids": ids, "padding_mask": mask}, hidden),
        classes=("a", "b"),
        tokenizer=WordPieceTokenizer(tiny_vocab, max_length=16),
    )
    with pytest.raises(ConfigError, match="cannot be perturbed"):
        split_at_embeddings(model)


def test_a_phase_that_cannot_be_perturbed_is_refused_before_others_are_trained(tiny_vocab, data, tmp_path):
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    hidden = keras.layers.Dense(8)(keras.ops.one_hot(ids, len(tiny_vocab)))
    model = build_text_classifier(
        keras.Model({"token_ids": ids, "padding_mask": mask}, hidden),
        classes=tuple(data.classes),
        tokenizer=WordPieceTokenizer(tiny_vocab, max_length=16),
    )
    before = model.get_weights()
    phases = [Phase("head", epochs=1, learning_rate=0.1), Phase("all", epochs=1, learning_rate=1e-3)]
    with pytest.raises(ConfigError, match="cannot be perturbed"):
        run(model, data, phases=phases, objective="fgm", run_dir=tmp_path)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "history.csv").exists()


def test_the_fused_pass_trains_on_the_worst_of_edited_texts(make_model, data):
    model = make_model()
    before = model.get_weights()
    phases = [Phase("head", epochs=1, learning_rate=1e-3), Phase("all", epochs=1, learning_rate=1e-3)]
    history = run(
        model,
        data,
        phases=phases,
        objective=make_objective("word_augmented", variants=2),
        augment={"edits": ["swap", "keyboard"]},
        keep_best=False,
    )
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["val_loss"]) for row in history.epochs)
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before, model.get_weights(), strict=True))


def test_a_named_attack_on_embeddings_trains(make_model, data):
    objective = make_objective("adversarial", attack="embedding_fgm", epsilon=0.2)
    assert all(assert_trained(objective, make_model(), data, "all"))


def test_a_named_attack_on_pixels_trains():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    images = load_image_data((images, np.array(["a", "b", "c"] * 8)), near_duplicates="keep", seed=0)
    objective = make_objective("adversarial", attack="apgd", num_steps=2)
    assert any(assert_trained(objective, make_image_model(train_batch_norm=False), images, "all"))


def make_image_model(train_batch_norm):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 255)(pixels)
    for width in (4, 8):
        hidden = keras.layers.Conv2D(width, 3, strides=2, use_bias=False)(hidden)
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    return build_image_classifier(
        keras.Model(pixels, hidden),
        classes=("a", "b", "c"),
        image_size=32,
        dropout_rate=0.0,
        train_batch_norm=train_batch_norm,
    )


def test_attacks_on_trained_normalisation_see_the_model_with_its_moving_averages():
    model = make_image_model(train_batch_norm=True)
    draw = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(draw.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(draw.uniform(0.5, 2.0, layer.moving_variance.shape))
    pixels = tf.constant(draw.uniform(0, 255, (4, 32, 32, 3)).astype(np.float32))
    folded = folded_inference(model, precision="float32")
    found = []
    for answer in (lambda given: folded({"pixels": given}), lambda given: model(given, training=False)):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            logits = answer(pixels)
        found.append((logits.numpy(), tape.gradient(logits, pixels).numpy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)
    assert folded_inference(make_image_model(train_batch_norm=False), precision="float32") is not None


TASKS = {"weights": ["image:adversarial:sgd", "text:fgm:sgd"]}
FURTHER = {
    "weights": [
        *(f"image:{name}:sgd" for name in ("free", "trades", "mart")),
        "normalised:adversarial:sgd",
        "text:freelb:sgd",
    ],
    "logits": [
        "image:adversarial:adamw",
        "image:trades:adamw",
        "normalised:free:sgd",
        # Under SGD both follow rounding: one device alone is as far from itself with the rows reversed.
        *(f"text:{name}:adamw" for name in ("smart", "vat", "fgm")),
    ],
}
LIMITS = {"weights": 1e-5, "logits": 1e-4}


def assert_the_same_on_two_devices(tasks):
    """20 steps in float32 without dropout and random starts, on the rows of a batch split in two.

    Batch normalisation that is trained is synchronised there: its statistics would be a replica's alone.
    """
    script = Path(__file__).parent / "two_devices.py"
    named = [task for kind in tasks for task in tasks[kind]]
    ran = subprocess.run([sys.executable, str(script), *named], capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
    apart = json.loads(ran.stdout.splitlines()[-1])
    too_far = {
        task: apart[task][kind] for kind in tasks for task in tasks[kind] if apart[task][kind] > LIMITS[kind]
    }
    assert too_far == {}


def test_two_devices_train_what_one_trains():
    assert_the_same_on_two_devices(TASKS)


@pytest.mark.slow
def test_two_devices_train_what_one_trains_with_every_objective():
    assert_the_same_on_two_devices(FURTHER)
