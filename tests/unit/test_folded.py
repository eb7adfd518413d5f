"""The folded forward pass computes what Keras computes, and gives the same gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.models.convolution import ACTIVATIONS, convolution_unit
from tfapp.models.folded import folded_parts
from tfapp.models.image_classifier import build_image_classifier
from tfapp.training.precision import computing_in

SIZE = 32


def network():
    """Convolutions with and without bias, depthwise, padded and strided; one normalisation stands alone."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    hidden = keras.layers.Conv2D(8, 3, strides=2, padding="same")(hidden)
    hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    branch = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(hidden)
    branch = keras.layers.BatchNormalization(scale=False)(branch)
    branch = keras.layers.Conv2D(8, 1, use_bias=False)(branch)
    branch = keras.layers.BatchNormalization(center=False)(branch)
    hidden = keras.layers.BatchNormalization()(keras.layers.Add()([hidden, branch]))
    hidden = keras.layers.ZeroPadding2D(1)(hidden)
    hidden = keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(hidden)
    hidden = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(hidden))
    model = keras.Model(inputs, hidden)
    random = np.random.default_rng(0)
    for variable in model.weights:  # Statistics, factors and biases unlike those of a new layer.
        if len(variable.shape) == 1:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def classifier():
    return build_image_classifier(network(), classes=("a", "b", "c"), dropout_rate=0.0)


@pytest.fixture(scope="module")
def pixels():
    return {"pixels": np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)}


def gradients(forward, inputs, variables):
    with tf.GradientTape() as tape:
        logits = forward(inputs, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 0], logits))
    return logits, tape.gradient(loss, variables)


@pytest.mark.parametrize("train", ["all", 1, "head"])
def test_logits_and_gradients_are_those_of_keras(classifier, pixels, train):
    lower, upper = classifier.split(train)
    parts = folded_parts(classifier, train, precision="float32")
    inputs = theirs = pixels
    if lower is not None:
        inputs, theirs = parts.lower(pixels), lower(pixels, training=False)
        assert set(inputs) == set(theirs)
        for name, values in theirs.items():
            np.testing.assert_allclose(inputs[name], values, rtol=1e-4, atol=1e-4)
    variables = [variable.value for variable in upper.trainable_variables]
    logits, ours = gradients(parts.upper, inputs, variables)
    expected, keras_own = gradients(upper, theirs, variables)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    for first, second in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4 * np.abs(second).max() + 1e-6)


def test_every_convolution_before_a_normalisation_is_folded(classifier, pixels, monkeypatch):
    called = []
    monkeypatch.setattr(keras.layers.BatchNormalization, "call", lambda _, x, **__: called.append(1) or x)
    folded_parts(classifier, "all", precision="float32").upper(pixels)
    assert len(called) == 1


def test_bfloat16_computes_the_same_but_for_rounding(classifier, pixels):
    expected = np.asarray(classifier(pixels))
    with computing_in("mixed_bfloat16", classifier.backbone):
        parts = folded_parts(classifier, "all", precision="mixed_bfloat16")
        logits = parts.upper(pixels)
        _, found = gradients(parts.upper, pixels, [v.value for v in classifier.trainable_variables])
    assert logits.dtype == tf.float32
    assert all(gradient.dtype == tf.float32 for gradient in found)
    np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


def test_another_head_stands_beside(classifier, pixels):
    beside = keras.layers.Dense(2)
    logits = folded_parts(classifier, "all", precision="float32", beside=beside).upper(pixels)
    np.testing.assert_allclose(logits[:, :3], classifier(pixels), rtol=1e-4, atol=1e-5)
    assert logits.shape == (4, 5)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dtype"),
    [
        ((2, 6, 8, 5), (1, 1, 5, 7), 1, "bfloat16"),
        ((2, 6, 8, 5), (1, 1, 5, 7), 2, "bfloat16"),
        ((2, 6, 8, 5), (1, 1, 5, 7), 2, "float32"),
        ((2, 5, 8, 5), (1, 1, 5, 7), 2, "bfloat16"),
        ((2, 3, 4, 256), (3, 3, 256, 256), 1, "bfloat16"),
        ((2, 6, 8, 5), (3, 3, 5, 7), 2, "bfloat16"),
        ((2, 6, 8, 5), (3, 3, 5, 2), 2, "bfloat16"),
    ],
)
@pytest.mark.parametrize("activation", ["linear", "relu6"])
def test_a_units_gradients_are_tensorflows(shape, kernel, stride, dtype, activation):
    random = np.random.default_rng(0)
    depthwise = kernel[-1] == 2
    sizes = (shape, kernel, (10 if depthwise else kernel[-1],))
    values = [random.normal(size=size).astype(np.float32) for size in sizes]
    options = {"strides": [1, stride, stride, 1], "padding": "SAME", "dilations": [1, 1, 1, 1]}

    def plain(inputs, kernel, shift):
        convolve = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
        convolved = convolve(inputs, kernel, [1, stride, stride, 1], "SAME")
        return ACTIVATIONS[activation](tf.nn.bias_add(convolved, shift))

    def differentiated(function):
        tensors = [tf.cast(value, dtype) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
            loss = tf.reduce_sum(
                tf.cast(outputs, tf.float32) * tf.cos(tf.range(outputs.shape[-1], dtype="float32"))
            )
        found = [outputs, *tape.gradient(loss, tensors)]
        assert all(tensor.dtype == dtype for tensor in found)
        return [tf.cast(tensor, tf.float32).numpy() for tensor in found]

    ours = differentiated(
        lambda *tensors: convolution_unit(*tensors, activation, options, depthwise=depthwise)
    )
    theirs = differentiated(plain)
    tolerance = 0.02 if dtype == "bfloat16" else 1e-5  # bfloat16 keeps 8 bits, and the order of sums differs.
    for first, second in zip(ours, theirs, strict=True):
        assert np.sqrt(((first - second) ** 2).mean()) < tolerance * second.std()


def test_there_is_nothing_to_fold_while_normalisation_is_trained():
    model = build_image_classifier(network(), classes=("a", "b"), train_batch_norm=True)
    assert folded_parts(model, "all", precision="float32") is None


def test_texts_have_nothing_to_fold(tiny_classifier):
    assert folded_parts(tiny_classifier, "all", precision="float32") is None
