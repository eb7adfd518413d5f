"""Clients on a server that serves a release: TF Serving's own where it is installed, else tfapp's."""

from __future__ import annotations

import asyncio

import keras
import numpy as np
import pytest
from running_server import running_server

from tfapp.data.image import load_image_data
from tfapp.errors import DataError, ServingError
from tfapp.models import build_image_classifier
from tfapp.release import export
from tfapp.release.golden_images import make_golden_images
from tfapp.serving import AsyncClient, Client, Prediction, load_release

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(release, tmp_path_factory):
    with running_server(release.path.parent, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["rest", "grpc"])
def url(server, request):
    return getattr(server, request.param)


@pytest.fixture(scope="module")
def texts(test_split):
    return [*test_split.texts, "", "zwölf 你好 \0 \U0001f600", "good film " * 2000]


@pytest.fixture(scope="module")
def expected(release, texts):
    return load_release(release.path).predict(texts)


def assert_same(answers, expected):
    for answer, wanted in zip(answers, expected, strict=True):
        assert isinstance(answer, Prediction)
        assert answer.label == wanted.label
        assert answer.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_the_server_answers_as_the_release_does(url, texts, expected, batch_size):
    with Client(url, "tiny") as client:
        assert_same(client.predict(texts, batch_size=batch_size), expected)


def test_an_async_client_gets_the_same_answers(url, texts, expected):
    async def ask():
        async with AsyncClient(url, "tiny", max_in_flight=3) as client:
            return await client.versions(), await client.predict(texts, batch_size=5)

    versions, answers = asyncio.run(ask())
    assert versions == {1: "AVAILABLE"}
    assert_same(answers, expected)


@pytest.mark.parametrize("version", [None, 1, "stable", "canary"])
def test_versions_and_labels_of_the_bundle_are_served(url, texts, expected, version):
    with Client(url, "tiny", version=version) as client:
        assert client.versions() == {1: "AVAILABLE"}
        assert_same(client.predict(texts[:3]), expected[:3])


@pytest.mark.parametrize(
    ("model", "version"), [("tiny", 9), ("tiny", "nightly"), ("others", None), ("others", "stable")]
)
def test_what_is_not_served_is_said(url, model, version):
    with Client(url, model, version=version) as client, pytest.raises(ServingError, match="check the model"):
        client.predict(["good film"])


def test_a_text_that_is_no_text_costs_no_other_its_answer(url, expected, texts):
    with Client(url, "tiny") as client:
        answers = list(client.predict_each([texts[0], None, texts[1]]))
    assert_same([answers[0], answers[2]], expected[:2])
    assert str(answers[1]) == "text 1 is NoneType instead of str."


def test_a_text_beyond_the_servers_limit_is_refused_alone(server, url, texts, expected):
    if server.real:
        pytest.skip("TF Serving has no limit of its own")
    with Client(url, "tiny") as client:
        answers = list(client.predict_each([texts[0], "long " * 100_000, texts[1]]))
    assert_same([answers[0], answers[2]], expected[:2])
    assert isinstance(answers[1], DataError)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A release of images, and the server of it."""
    keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    names = np.array(["dark", "light"])[np.arange(40) % 2]
    data = load_image_data((pixels, names), validation_fraction=0.2, test_fraction=0.5, seed=1)
    inputs = keras.Input((32, 32, 3), name="pixels")
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, strides=4)(inputs / 255.0))
    model = build_image_classifier(network, classes=data.classes, image_size=32)
    directory = tmp_path_factory.mktemp("saved_models") / "pictures"
    done = export(model, directory, check_with=data.test, variants=["saved_model"])
    with running_server(directory, tmp_path_factory.mktemp("server"), joins=False) as running:
        yield done, running


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_images_are_classified_and_a_damaged_one_is_refused_alone(pictures, tmp_path, protocol):
    done, server = pictures
    images = [*make_golden_images((32, 32), count=9), np.full((20, 10, 3), 200, np.uint8)]
    (tmp_path / "one.jpg").write_bytes(images[1])
    expected = load_release(done.path).predict(images)
    given = [*images[:4], b"no image", *images[4:], tmp_path / "one.jpg", tmp_path / "none.jpg"]
    with Client(getattr(server, protocol), "pictures") as client:
        answers = list(client.predict_each(given))
    assert_same([*answers[:4], *answers[5:12]], [*expected, expected[1]])
    assert "not an image in JPEG, PNG, BMP or GIF format" in str(answers[4])
    assert "none.jpg cannot be read" in str(answers[12])
