"""The transfer ledger on tiny models that are really trained, of texts and of images."""

import random

import keras
import keras_hub
import numpy as np
import pytest

from tfapp.data.image import load_image_data
from tfapp.data.text import load_text_data
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.evaluation import transfer_ledger
from tfapp.evaluation.ledger import WAYS
from tfapp.models import build_image_classifier, build_text_classifier
from tfapp.training import Phase, SourceTask

PHASES = [Phase("head", epochs=1, learning_rate=0.02), Phase("all", epochs=1, learning_rate=0.01)]
TOPICS = {"sport": ["team", "goal", "match"], "tech": ["computer", "network", "phone"]}
MOODS = {"good": ["great", "fine", "best"], "bad": ["awful", "poor", "worst"], "plain": ["long", "short"]}


def texts_of(words, rows, seed):
    draw = random.Random(seed)
    names = list(words)
    labels = [names[row % len(names)] for row in range(rows)]
    texts = [" ".join(draw.choice([*words[label], "the", "a"]) for _ in range(6)) for label in labels]
    return load_text_data((texts, labels), seed=0)


@pytest.fixture(scope="module")
def topics():
    return texts_of(TOPICS, 60, 1)


@pytest.fixture
def build_text(tiny_vocab, monkeypatch):
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)
    built = []

    def build(weights, seed):
        built.append((weights, seed))
        keras.utils.set_random_seed(0 if weights else 100 + seed)
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=len(tiny_vocab),
            num_layers=1,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            max_sequence_length=64,
        )
        tokenizer = WordPieceTokenizer(tiny_vocab, max_length=32)
        return build_text_classifier(backbone, classes=tuple(TOPICS), tokenizer=tokenizer, seed=seed)

    build.built = built
    return build


@pytest.mark.slow
def test_texts_with_a_source(build_text, topics, tmp_path):
    source = SourceTask(texts_of(MOODS, 60, 2), alpha=0.5)
    options = {"phases": PHASES, "batch_size": 8, "precision": "float32", "verbose": False}
    ledger = transfer_ledger(
        build_text, topics, source=source, num_bootstrap=50, run_dir=tmp_path / "runs", **options
    )
    assert build_text.built == [(None, 0)] + [("pretrained", 0)] * 3
    assert [row.way for row in ledger.rows] == list(WAYS)
    assert [row.trained for row in ledger.rows] == ["all x 2", "head x 2"] + ["head x 1, all x 1"] * 2
    scratch, frozen, tuned, joint = ledger.rows
    assert scratch.source_before is None
    assert (frozen.forgot.value, frozen.forgot.low, frozen.forgot.high) == (0.0, 0.0, 0.0)
    assert tuned.source_before == joint.source_before == frozen.source_after
    assert tuned.forgot.value == pytest.approx(tuned.source_before.value - tuned.source_after.value)
    assert joint.alphas == (0.5,)
    assert ledger.verdict("joint", "fine-tuned") in ("helped", "did not", "hurt")
    assert (tmp_path / "runs" / "joint-0" / "history.csv").is_file()
    again = transfer_ledger(
        build_text, topics, source=source, num_bootstrap=50, run_dir=tmp_path / "runs", **options
    )
    assert again.to_dict() == ledger.to_dict()


def images_of(rows, classes, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    pixels = generator.normal(120, 30, (rows, 32, 32, 3))
    for label in range(classes):
        pixels[labels == label, ..., label] += 60
    names = [f"class {label}" for label in labels]
    return load_image_data((pixels.clip(0, 255).astype(np.uint8), names), near_duplicates="keep", seed=0)


@pytest.mark.slow
def test_images_that_are_augmented_and_mixed():
    def build(weights, seed):
        keras.utils.set_random_seed(0 if weights else 100 + seed)
        inputs = keras.Input((32, 32, 3))
        hidden = keras.layers.Conv2D(4, 3, strides=4, use_bias=False)(inputs)
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
        backbone = keras.Model(inputs, hidden)
        return build_image_classifier(
            backbone, classes=("class 0", "class 1"), train_batch_norm=weights is None, seed=seed
        )

    ledger = transfer_ledger(
        build,
        images_of(40, 2, 1),
        source=SourceTask(images_of(45, 3, 2), source_share=0.5),
        phases=PHASES,
        num_bootstrap=50,
        batch_size=8,
        augment={"horizontal_flip": True, "mixup": 0.2},
        precision="float32",
        verbose=False,
    )
    assert [row.way for row in ledger.rows] == list(WAYS)
    assert all(np.isfinite(row.accuracy.value) for row in ledger.rows)
    assert ledger.source_rows == 9
