"""Training on texts that are edited in every epoch, and on images that are attacked."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import StopAfter, Stopped, tiny_text_classifier

from tfapp.data.image import load_image_data
from tfapp.data.text import load_text_data
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, WeightsError
from tfapp.models import build_image_classifier
from tfapp.objectives import StepResult
from tfapp.objectives.standard import Standard
from tfapp.training import Phase, SourceTask, train
from tfapp.training.adversarial import make_adversarial
from tfapp.training.attacked_images import frozen_images
from tfapp.training.inference import predict_logits

TOPICS = {
    "business": ["market", "bank", "price", "profit"],
    "sport": ["team", "goal", "match", "coach"],
    "tech": ["computer", "network", "phone", "software"],
}
PHASES = [Phase("head", 1, 0.02), Phase("all", 2, 0.01)]
EDITS = {"edits": ["swap", "keyboard"], "edit_share": 0.5, "corruptions": ["case"], "severity": 2}
SIZE = 32


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(1)
    labels = [name for name in TOPICS for _ in range(16)]
    rows = [
        " ".join(draw.choice(TOPICS[name] + ["the", "a", "of"]) for _ in range(draw.choice([3, 6])))
        + f" {number}"
        for number, name in enumerate(labels)
    ]
    return load_text_data((rows, labels), validation_fraction=0.2, test_fraction=0.2, seed=3)


@pytest.fixture(scope="module")
def make_text_model(tiny_vocab):
    def make(**options):
        tokenizer = WordPieceTokenizer(tiny_vocab, max_length=32, **options)
        return tiny_text_classifier(tiny_vocab, TOPICS, tokenizer=tokenizer)

    return make


@pytest.fixture(scope="module")
def images():
    """Stripes that lie or stand, in noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    wave = np.where(np.arange(SIZE) // 4 % 2, 180, 70)[None, :, None]
    pixels = np.where(labels[:, None, None, None] == 0, wave[:, :, None], wave[:, None, :])
    pixels = np.clip(pixels + generator.normal(0, 25, (60, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    names = np.array(["lying", "standing"])[labels]
    return load_image_data((pixels, names), validation_fraction=0.2, test_fraction=0.2, seed=1)


def make_image_model(data, seed=0):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)
    for filters in (4, 8):
        hidden = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(hidden)
    return build_image_classifier(
        keras.Model(pixels, hidden), classes=data.classes, image_size=SIZE, seed=seed
    )


def run(model, data, **options):
    return train(model, data, **{"batch_size": 8, "precision": "float32", "verbose": False, **options})


def assert_resumed_like_unbroken(make, data, directory, *, stop_after, **options):
    whole, stopped, resumed = make(), make(), make()
    run(whole, data, **options)
    with pytest.raises(Stopped):
        run(stopped, data, run_dir=directory, callbacks=[StopAfter(stop_after)], **options)
    run(resumed, data, run_dir=directory, **options)
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    return whole


def test_a_stopped_run_on_edited_texts_goes_on_with_the_same_texts(
    texts, make_text_model, tmp_path, monkeypatch
):
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    options = {"phases": PHASES, "augment": EDITS, "views": 3, "seed": 2, "keep_best": False}
    assert_resumed_like_unbroken(make_text_model, texts, tmp_path, stop_after=2, **options)
    (pooled,) = (tmp_path / "features").glob("head-train")
    features = np.fromfile(pooled / "features.bin", np.float32).reshape(3, len(texts.train), -1)
    distances = np.abs(features[0] - features[1]).max(axis=1)
    assert np.mean(distances > 1e-4) > 0.4  # in most rows one of two views is changed
    (validation,) = (tmp_path / "features").glob("head-validation")
    assert np.fromfile(validation / "features.bin", np.float32).size == len(texts.validation) * 16


def test_texts_of_a_source_task_are_edited_too(texts, make_text_model, tmp_path, monkeypatch):
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    part = replace(texts.train, texts=texts.train.texts[:20], labels=texts.train.labels[:20])
    source = SourceTask(replace(texts, train=part))
    phases = [Phase(1, 1, 0.02), Phase("all", 1, 0.01)]
    history = run(make_text_model(), texts, phases=phases, augment=EDITS, source=source, run_dir=tmp_path)
    assert np.isfinite([row["loss"] for row in history.epochs]).all()
    assert {path.name for path in (tmp_path / "features").glob("top-1-*")} == {
        "top-1-train",
        "top-1-source",
        "top-1-validation",
    }


class WorstVariant(Standard):
    """Trains on the variant of each text that has the highest loss, as an objective with variants may."""

    name = "worst_variant"
    variants = 2

    def __init__(self):
        self.shapes = []

    def step(self, model, inputs, labels, sample_weight):
        inputs = dict(inputs)
        variants = inputs.pop("variants")
        self.shapes.append({name: values.shape for name, values in variants.items()})
        flat = {name: tf.reshape(values, [-1, tf.shape(values)[2]]) for name, values in variants.items()}
        logits = tf.reshape(model(flat, training=False), [-1, self.variants, model.num_classes])
        repeated = tf.repeat(labels[:, None], self.variants, axis=1)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(repeated, logits)
        worst = tf.argmax(losses, axis=1)
        chosen = {name: tf.gather(values, worst, axis=1, batch_dims=1) for name, values in variants.items()}
        result = super().step(model, chosen, labels, sample_weight)
        return StepResult(result.loss, model(inputs, training=False), result.gradients)


def test_an_objective_gets_variants_where_it_asks_for_them(texts, make_text_model):
    objective, model = WorstVariant(), make_text_model()
    phases = [Phase("head", 1, 0.02), Phase("all", 1, 0.01)]
    run(model, texts, phases=phases, augment=EDITS, objective=objective)
    assert objective.shapes
    assert all(shape[1] == 2 for shapes in objective.shapes for shape in shapes.values())
    assert predict_logits(model, texts.test.texts).shape == (len(texts.test), 3)
    with pytest.raises(ConfigError, match="say how they are made"):
        run(make_text_model(), texts, objective=objective)


class Pixels(Standard):
    """Notes what pixels a step is given."""

    def __init__(self):
        self.batches = []

    def step(self, model, inputs, labels, sample_weight):
        tf.py_function(lambda pixels: self.batches.append(pixels.numpy()), [inputs["pixels"]], [])
        return super().step(model, inputs, labels, sample_weight)


ATTACK = {"attack": "fgsm", "epsilon": 8 / 255, "fraction": 0.5}


def pixels_of(model, split):
    encoded = model.encode_splits({"train": split}, None)[0]["train"]
    return encoded.decoder.make_rows(encoded).gather(tf.range(len(encoded)))["pixels"].numpy()


def test_images_are_attacked_within_epsilon_and_in_the_share_that_was_asked_for(images):
    seen, model = Pixels(), make_image_model(images)
    run(model, images, phases=[Phase("head", 3, 1e-2)], objective=seen, augment={"adversarial": ATTACK})
    found = np.concatenate(seen.batches).reshape(3 * len(images.train), -1)
    clean = pixels_of(model, images.train).reshape(len(images.train), -1).astype(np.float32)
    nearest = np.abs(found[:, None] - clean).max(axis=2).min(axis=1)
    assert nearest.max() == pytest.approx(8.0, abs=1e-3)  # float32 at 255
    # 15 batches, each rounded to a whole number of rows: 54 of 108, within 4 standard deviations.
    assert np.mean(nearest > 0) == pytest.approx(0.5, abs=0.07)


def test_a_stopped_run_on_attacked_images_goes_on_as_if_it_had_not(images, tmp_path):
    augment = {"horizontal_flip": True, "adversarial": {**ATTACK, "attack": "pgd", "num_steps": 2}}
    assert_resumed_like_unbroken(
        lambda: make_image_model(images),
        images,
        tmp_path,
        stop_after=2,
        phases=[Phase("all", 3, 1e-2)],
        augment=augment,
        keep_best=False,
        seed=4,
    )


def test_a_frozen_set_is_made_before_training_and_kept(images, tmp_path):
    other = make_image_model(images, seed=1)
    file = tmp_path / "release/keras/model.keras"
    file.parent.mkdir(parents=True)
    other.plain().save(file)
    (tmp_path / "release/edge").mkdir()
    (tmp_path / "release/edge/golden.json").write_text(json.dumps({"classes": ["lying", "standing"]}))
    setting = {**ATTACK, "refresh": "never", "epsilon": 7.5 / 255}
    described = [make_adversarial({**setting, "model": model}).described() for model in (other, file)]
    assert described[0] == described[1]
    adversarial = make_adversarial({**setting, "model": tmp_path / "release"})
    start = make_image_model(images)
    encoded = start.encode_splits({"train": images.train}, None)[0]["train"]
    frozen = frozen_images(encoded, images.train.labels, adversarial, start, seed=3)
    rows = tf.range(len(encoded))
    before, after = (
        part.decoder.make_rows(part).gather(rows)["pixels"].numpy() for part in (encoded, frozen)
    )
    differences = np.abs(after.astype(int) - before).max(axis=(1, 2, 3))
    assert np.count_nonzero(differences) == round(len(encoded) / 2)
    assert differences.max() == 7  # whole grey levels within 7.5
    assert frozen.fingerprint() != encoded.fingerprint()
    euclidean = make_adversarial({**setting, "norm": "l2", "epsilon": 0.2, "model": tmp_path / "release"})
    part = frozen_images(encoded, images.train.labels, euclidean, start, seed=3)
    moved = part.decoder.make_rows(part).gather(rows)["pixels"].numpy().astype(float) - before
    lengths = np.sqrt(np.sum(moved**2, axis=(1, 2, 3)))
    assert lengths.max() <= 0.2 * 255
    assert lengths[lengths > 0].mean() > 0.8 * 0.2 * 255

    def loss(pixels):
        logits = other({"pixels": tf.cast(pixels, tf.float32)}, training=False)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(images.train.labels, logits).numpy()

    hit = differences > 0
    assert loss(after)[hit].mean() > loss(before)[hit].mean()
    attacked = make_image_model(images)
    run(
        attacked,
        images,
        phases=[Phase("head", 1, 1e-2)],
        augment={"adversarial": {**setting, "model": None}},
        run_dir=tmp_path,
    )
    assert (tmp_path / "features" / "head-train").is_dir()


def test_corrupted_images_train(images):
    augment = {"corruptions": ["gaussian_noise", "fog"], "severity": 5, "corruption_fraction": 1.0}
    seen = Pixels()
    history = run(
        make_image_model(images), images, phases=[Phase("all", 1, 1e-2)], augment=augment, objective=seen
    )
    assert np.isfinite(history.epochs[0]["loss"])
    assert seen.batches[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("adversarial", "error", "message"),
    [
        ({"attack": "apgd"}, ConfigError, "pgd"),
        ({"epsilon": 0.0}, ConfigError, "epsilon = 0.0"),
        ({"fraction": 1.5}, ConfigError, "fraction = 1.5"),
        ({"epsilon": float("inf")}, ConfigError, "epsilon = inf"),
        ({"epsilon": 8.0}, ConfigError, "a fraction of the pixel range"),
        ({"attack": "pgd", "num_steps": 0}, ConfigError, "num_steps = 0"),
        ({"num_steps": 3}, ConfigError, "'fgsm' has one step; leave it out, or choose attack = 'pgd'"),
        ({"norm": "l1"}, ConfigError, "norm = 'l1'"),
        ({"model": "m.keras"}, ConfigError, "refresh = 'never'"),
        ({"steps": 3}, ConfigError, "num_steps"),
        ("fgsm", ConfigError, "a table of settings"),
        ({"refresh": "never", "model": "nowhere.keras"}, WeightsError, "nowhere.keras"),
    ],
)
def test_attacks_that_cannot_be_made_are_refused(images, adversarial, error, message):
    with pytest.raises(error, match=message):
        run(make_image_model(images), images, augment={"adversarial": adversarial})


def test_steps_belong_to_pgd_and_have_a_default():
    single, several = (make_adversarial({"attack": attack}) for attack in ("fgsm", "pgd"))
    assert single.described()["num_steps"] is None
    assert several.described() == make_adversarial({"attack": "pgd", "num_steps": 7}).described()
    assert several.described() != make_adversarial({"attack": "pgd", "num_steps": 8}).described()


@pytest.mark.parametrize("saved", [False, True])
def test_a_model_with_classes_in_another_order_is_not_attacked(images, tmp_path, saved):
    other = make_image_model(SimpleNamespace(classes=("standing", "lying")))
    (tmp_path / "keras").mkdir()
    other.plain().save(tmp_path / "keras/model.keras")
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge/golden.json").write_text(json.dumps({"classes": ["standing", "lying"]}))
    adversarial = {**ATTACK, "refresh": "never", "model": tmp_path if saved else other}
    with pytest.raises(ConfigError, match=r"the classes \['standing', 'lying'\].*\['lying', 'standing'\]"):
        run(make_image_model(images), images, augment={"adversarial": adversarial})
    (tmp_path / "edge/golden.json").unlink()
    with pytest.raises(WeightsError, match="tells the classes of a release, cannot be read"):
        run(make_image_model(images), images, augment={"adversarial": {**adversarial, "model": tmp_path}})


def test_attacked_batches_are_refused_on_several_replicas(images, monkeypatch):
    monkeypatch.setattr(type(tf.distribute.get_strategy()), "num_replicas_in_sync", 2)
    with pytest.raises(
        ConfigError, match="a strategy of 2 replicas: batches are taken from the pipeline ahead"
    ):
        run(make_image_model(images), images, augment={"adversarial": ATTACK})


def test_what_does_not_go_together_is_refused(images, texts, make_text_model):
    with pytest.raises(ConfigError, match="takes texts"):
        run(make_text_model(), texts, augment={"adversarial": ATTACK})
    with pytest.raises(ConfigError, match="long_texts='truncate'"):
        run(make_text_model(long_texts="windows"), texts, augment=EDITS)
    with pytest.raises(ConfigError, match="or the source task"):
        run(make_image_model(images), images, augment={"adversarial": ATTACK}, source=SourceTask(images))
    other = keras.Model(pixels := keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()(pixels))
    with pytest.raises(ConfigError, match="takes pixels"):
        run(
            make_image_model(images),
            images,
            augment={"adversarial": {**ATTACK, "refresh": "never", "model": other}},
        )
