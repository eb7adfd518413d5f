"""Before integers: channels of like ranges, the same answers, typical rows."""

import json

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


def far_apart():
    """A classifier with one logit far from the others: 8 bits for all leave little to tell those apart."""
    model = build_image_classifier(network(), classes=["a", "b", "c"], dropout_rate=0.0)
    dense = next(layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense))
    kernel, _ = dense.get_weights()
    kernel[:, 2] = 0.0
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    # The first two are as often the more probable one, and half a unit apart; a step of 8 bits is a quarter.
    gap = np.diff(model.predict({"pixels": images().astype(np.float32)}, verbose=0)[:, :2])
    scale = 0.5 / gap.std()
    dense.set_weights([kernel * scale, np.array([0.0, -np.median(gap) * scale, -60.0], np.float32)])
    return model


def test_layers_stay_in_floating_point_where_integers_change_too_many_answers(tmp_path):
    model, pixels = far_apart(), images()
    expected = model.predict({"pixels": pixels.astype(np.float32)}, verbose=0).argmax(axis=1)
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]

    def file(folder, **options):
        path = tflite.export_tflite(model, tmp_path / folder, variant="int8", calibration=encoded, **options)
        runner = Interpreter(str(path)).get_signature_runner()
        assert runner.get_input_details()["pixels"]["dtype"] == np.uint8
        assert runner.get_output_details()["probabilities"]["dtype"] == np.uint8
        answers = [runner(pixels=image[np.newaxis])["probabilities"][0].argmax() for image in pixels]
        return path, float(np.mean(np.array(answers) == expected))

    whole, before = file("whole")
    assert not (whole.parent / tflite.INTEGER_REPORT).exists()
    mixed, after = file("mixed", min_agreement=0.99)
    report = json.loads((mixed.parent / tflite.INTEGER_REPORT).read_text())
    first, *others = report["tried"]
    # The file has its metadata besides.
    assert first == {"float_layers": [], "agreement": before, "bytes": first["bytes"]}
    assert 0 < first["bytes"] < whole.stat().st_size
    assert after == max(row["agreement"] for row in report["tried"]) > before
    assert others[0]["float_layers"], "the head comes first"
    assert {layer["operator"] for layer in report["layers"]} >= {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"}
    errors = [layer["error"] for layer in report["layers"]]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0


def test_an_integer_file_that_agrees_is_kept_whole(tmp_path):
    model = classifier()
    encoded = [tf.io.encode_png(image).numpy() for image in images(20)]
    path = tflite.export_tflite(model, tmp_path, variant="int8", calibration=encoded, min_agreement=0.01)
    assert not (path.parent / tflite.INTEGER_REPORT).exists()
