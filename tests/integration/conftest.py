"""A small release of every variant, made once for the tests that look at it or damage it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil

import numpy as np
import pytest


@pytest.fixture(scope="session")
def decided_classifier(tiny_vocab):
    """A random BERT of 2 blocks whose head is steep enough to choose each of its classes clearly."""
    import keras
    from helpers import tiny_bert

    from tfapp.data.tokenizers import WordPieceTokenizer
    from tfapp.models import build_text_classifier
    from tfapp.training.inference import predict_logits

    keras.utils.set_random_seed(1)
    model = build_text_classifier(
        tiny_bert(tiny_vocab, width=32),
        classes=("business", "sport", "tech"),
        pooling="mean",
        tokenizer=WordPieceTokenizer(tiny_vocab, max_length=24),
    )
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 40, bias])
    logits = predict_logits(model, make_texts(tiny_vocab, seed=2))
    model.layers[-1].set_weights([kernel * 40, -logits.mean(axis=0)])
    model.temperature = 1.7
    return model


def make_texts(vocabulary, *, seed, count=60):
    """Draws words; short texts, so that they differ from each other."""
    draw = random.Random(seed)
    words = [piece for piece in vocabulary if piece.isalpha() and len(piece) > 1]
    return tuple(" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(count))


@pytest.fixture(scope="session")
def test_split(decided_classifier, tiny_vocab):
    """Sixty texts labelled as the classifier itself answers, but for every tenth."""
    from tfapp.data.text import TextSplit
    from tfapp.training.inference import predict_logits

    texts = make_texts(tiny_vocab, seed=5)
    labels = predict_logits(decided_classifier, texts).argmax(axis=1)
    assert np.bincount(labels).min() > 6
    labels[::10] = (labels[::10] + 1) % 3
    return TextSplit("test", texts, labels.astype(np.int32), decided_classifier.classes)


@pytest.fixture(scope="session")
def release(decided_classifier, test_split, tmp_path_factory):
    """A release of every variant; tests that change files must copy it."""
    from tfapp.release import export

    directory = tmp_path_factory.mktemp("saved_models") / "tiny"
    return export(
        decided_classifier, directory, check_with=test_split, config={"name": "tiny"}, web=False, seed=5
    )


@pytest.fixture(scope="module")
def folder(release, tmp_path_factory):
    """A copy of the release, as version 1, that tests may add versions to."""
    target = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(release.path, target / "1")
    return target


@pytest.fixture(scope="module")
def loaded(folder):
    """The release as a server has it, in batches of at most eight rows, two at once."""
    from tfapp.serving.server import Batching
    from tfapp.serving.server.loaded import LoadedModel

    model = LoadedModel(folder / "1", 1, batching=Batching(max_batch_size=8, num_batch_threads=2))
    yield model
    model.close()


@pytest.fixture
def served(folder, loaded):
    """Makes a core that serves version 1, with settings of its own."""
    from tfapp.serving.server import ServerSettings
    from tfapp.serving.server.core import Core
    from tfapp.serving.server.metrics import Metrics
    from tfapp.serving.server.versions import Versions

    cores = []

    def make(**settings):
        versions = Versions(folder, lambda _path, _number: loaded)
        core = Core(versions, ServerSettings(release=folder, **settings), Metrics("tiny"))
        asyncio.run(versions.refresh())
        cores.append(core)
        return core

    yield make
    for core in cores:
        core.close()


@pytest.fixture(scope="session")
def litertjs():
    """The folder of the page's runtime; without it a test is skipped, or fails under CI."""
    from tfapp.assets import ASSETS, fetch
    from tfapp.errors import AssetError

    try:
        return fetch(ASSETS["litertjs"])
    except AssetError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"LiteRT.js cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one a test is skipped, or fails under CI."""
    from browser import chromium, find_chromium

    if find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium on the PATH")
        pytest.skip("there is no Chromium on the PATH")
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def aarch64():
    """A folder with Python and LiteRT for aarch64, which qemu runs; without it a test is skipped."""
    from aarch64 import make_aarch64

    return make_aarch64()
