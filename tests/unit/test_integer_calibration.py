"""Before integers: channels of like ranges, the same answers, typical rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tfapp import build_image_classifier
from tfapp.exporters import tflite
from tfapp.exporters._calibration import ready_for_integers

ROWS = 80
SIZE = 32


def network(activation="relu", *, shared=False):
    """Two branches that meet, behind a convolution of whose channels some are a thousandth of others."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 255)(pixels)
    hidden = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(hidden)
    hidden = keras.layers.Activation(activation)(keras.layers.BatchNormalization(name="uneven")(hidden))
    again = keras.layers.Conv2D(8, 3, padding="same", name="again")
    branch = again(hidden)
    branch = again(branch) if shared else branch
    hidden = keras.layers.Add()([hidden, keras.layers.BatchNormalization(name="norm")(branch)])
    hidden = keras.layers.MaxPooling2D(2)(keras.layers.ReLU()(hidden))
    hidden = keras.layers.Conv2D(16, 3, activation="relu", name="last")(hidden)
    return keras.Model(pixels, hidden)


def classifier(**options):
    model = build_image_classifier(network(**options), classes=["a", "b", "c"], dropout_rate=0.0)
    spread = np.float32(10.0) ** -np.arange(0, 4, 0.5, dtype=np.float32)
    for name in ("uneven", "norm"):
        layer = model.backbone.get_layer(name)
        layer.gamma.assign(spread)
        layer.beta.assign(spread / 2)
    kernel = model.backbone.get_layer("last").kernel
    kernel.assign(kernel.value / spread[:, np.newaxis])  # small channels matter as much as large ones
    return model


def images(count=ROWS):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def batches(values):
    return ({"pixels": row[np.newaxis].astype(np.float32)} for row in values)


def test_answers_stay_and_ranges_become_more_alike():
    model, pixels = classifier(), images(8).astype(np.float32)
    before = [value.copy() for value in model.get_weights()]
    twin, _ = ready_for_integers(model, batches(pixels))
    np.testing.assert_allclose(twin({"pixels": pixels}), model({"pixels": pixels}), rtol=1e-3, atol=1e-4)
    for kept, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)

    def spread(of):
        values = np.abs(keras.Function(of.inputs, of.backbone.get_layer("uneven").output)([pixels]))
        largest = values.reshape(-1, 8).max(axis=0)
        return largest.max() / largest.min()

    assert spread(model) > 500
    assert spread(twin) < 50


@pytest.mark.parametrize("options", [{"activation": "swish"}, {"shared": True}])
def test_what_would_change_answers_is_left_alone(options):
    model, pixels = classifier(**options), images(8).astype(np.float32)
    twin, _ = ready_for_integers(model, batches(pixels))
    np.testing.assert_allclose(twin({"pixels": pixels}), model({"pixels": pixels}), rtol=1e-3, atol=1e-4)
    touched = "uneven" if "activation" in options else "again"
    for own, other in zip(
        model.backbone.get_layer(touched).get_weights(),
        twin.backbone.get_layer(touched).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(own, other)


def test_rows_out_of_the_ordinary_do_not_decide():
    model, pixels = classifier(), images() // 8
    pixels[7] *= 8
    _, rows = ready_for_integers(model, batches(pixels))
    assert len(rows) == 50
    assert 7 not in rows
    _, rows = ready_for_integers(model, batches(pixels[:20]))
    assert rows == list(range(20))


def test_integers_answer_closer_to_the_floats_than_without(tmp_path, monkeypatch):
    model, pixels = classifier(), images()
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    expected = tf.nn.softmax(model({"pixels": pixels.astype(np.float32)})).numpy()

    def distance(folder):
        path = tflite.export_tflite(model, tmp_path / folder, variant="int8", calibration=encoded)
        runner = Interpreter(str(path)).get_signature_runner()
        answers = [runner(pixels=image[np.newaxis])["probabilities"][0] / 256 for image in pixels]
        return np.abs(np.stack(answers) - expected).mean()

    with_care = distance("ours")
    monkeypatch.setattr(tflite, "ready_for_integers", lambda model, _: (model, range(ROWS)))
    assert with_care < 0.5 * distance("plain")
