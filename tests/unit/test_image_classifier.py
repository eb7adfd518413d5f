"""The image classifier: splitting, copies, files, precision, and batch normalisation in inference mode."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.errors import ConfigError, WeightsError
from tfapp.models.image_classifier import ImageClassifier, build_image_classifier
from tfapp.training.precision import computing_in

SIZE = 32
CLASSES = ("less red", "less blue")


def tiny_backbone(size=(SIZE, SIZE, 3)):
    """Two residual blocks with batch normalisation behind a stem, all with values of their own."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(size)
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    hidden = keras.layers.Conv2D(8, 3, strides=4, padding="same", use_bias=False)(hidden)
    hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    for _ in range(2):
        branch = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(hidden)
        branch = keras.layers.ReLU()(keras.layers.BatchNormalization()(branch))
        hidden = keras.layers.ReLU()(keras.layers.Add()([hidden, branch]))
    return keras.Model(inputs, hidden, name="tiny")


def images(rows, *, seed=0):
    """Noise with a little less red or blue, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    values = random.normal(150, 40, (rows, SIZE, SIZE, 3))
    values[labels == 0, ..., 0] -= 30
    values[labels == 1, ..., 2] -= 30
    return values.clip(0, 255).astype(np.uint8), labels.astype(np.int32)


@pytest.fixture
def classifier():
    return build_image_classifier(tiny_backbone(), classes=CLASSES)


@pytest.fixture(scope="module")
def pixels():
    return {"pixels": images(4)[0]}


def test_it_is_a_classifier_of_raw_pixels(classifier, pixels):
    assert classifier.image_size == (SIZE, SIZE)
    assert classifier.num_blocks == 1
    assert (classifier.preset, classifier.classes) == ("", CLASSES)
    logits = classifier(pixels)
    assert (logits.shape, logits.dtype) == ((4, 2), tf.float32)
    as_float = {"pixels": pixels["pixels"].astype(np.float32)}
    np.testing.assert_array_equal(logits, classifier(as_float))
    assert classifier.preprocessor.image_size == (SIZE, SIZE)


@pytest.mark.parametrize(("train", "crossing"), [("head", "features"), (1, "hidden")])
def test_the_two_parts_make_the_whole(classifier, pixels, train, crossing):
    lower, upper = classifier.split(train)
    between = lower(pixels, training=False)
    assert list(between) == [crossing]
    np.testing.assert_allclose(upper(between), classifier(pixels), atol=1e-6)
    ours = {id(variable) for variable in classifier.variables}
    assert {id(variable) for part in (lower, upper) for variable in part.variables} <= ours
    assert len(upper.trainable_variables) == {"head": 2, 1: 3}[train]


def test_another_heads_logits_stand_behind_its_own(classifier, pixels):
    lower, upper = classifier.split(1, beside=keras.layers.Dense(3, name="source"))
    assert upper(lower(pixels)).shape == (4, 5)


def test_there_is_no_other_cut(classifier):
    with pytest.raises(ConfigError, match="1 to 1 top blocks"):
        classifier.split(2)


def test_a_network_with_operators_between_its_layers_can_be_copied():
    pixels = keras.Input((8, 8, 3), name="pixels")
    hidden = keras.layers.Conv2D(3, 3, padding="same")(pixels)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden + pixels)
    model = build_image_classifier(keras.Model(pixels, hidden), classes=["a", "b"], image_size=8)
    batch = {"pixels": np.full((1, 8, 8, 3), 7.0, np.float32)}
    np.testing.assert_array_equal(model.float32_copy()(batch), model(batch))


def test_a_copy_and_a_rebuilt_model_keep_everything(classifier, pixels):
    classifier.temperature = 2.0
    twin = classifier.float32_copy()
    rebuilt = ImageClassifier.from_config(classifier.get_config())
    rebuilt.set_weights(classifier.get_weights())
    for other in (twin, rebuilt):
        assert other.get_config() == classifier.get_config()
        assert len(other.trainable_variables) == len(classifier.trainable_variables) == 5
        np.testing.assert_array_equal(other(pixels), classifier(pixels))
    json.dumps(classifier.settings)


def test_a_keras_file_loads_without_tfapp(classifier, pixels, tmp_path):
    assert classifier.cannot_export == {}
    classifier.plain().save(tmp_path / "model.keras")
    plain = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(plain) is keras.models.Model or type(plain).__module__.startswith("keras.")
    np.testing.assert_array_equal(plain(pixels), classifier(pixels))


def test_bfloat16_leaves_pixels_exact_and_the_model_as_it_was(classifier, pixels):
    before = classifier(pixels)
    with computing_in("mixed_bfloat16", classifier.backbone):
        policies = {type(layer).__name__: layer.dtype_policy.name for layer in classifier.backbone.layers}
        np.testing.assert_allclose(classifier(pixels), before, atol=0.05)
    assert policies["Conv2D"] == "mixed_bfloat16"
    assert policies["Rescaling"] == "float32"
    np.testing.assert_array_equal(classifier(pixels), before)


def normalisations(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize("train", ["all", 1])
def test_batch_normalisation_stays_as_it_is(classifier, pixels, train):
    lower, upper = classifier.split(train)
    inputs = pixels if lower is None else lower(pixels)
    before = [np.array(v) for layer in normalisations(classifier.backbone) for v in layer.variables]
    dropout, _ = classifier.head_layers
    dropout.rate = 0.0
    np.testing.assert_array_equal(upper(inputs, training=True), upper(inputs, training=False))
    after = [np.array(v) for layer in normalisations(classifier.backbone) for v in layer.variables]
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)
    with computing_in("mixed_bfloat16", classifier.backbone):
        assert not any(layer.trainable for layer in normalisations(classifier.backbone))


def test_a_bias_below_batch_normalisation_stays_too():
    inputs = keras.Input((SIZE, SIZE, 3))
    hidden = keras.layers.Conv2D(4, 3, name="below")(inputs)
    hidden = keras.layers.Conv2D(4, 3, name="above")(keras.layers.BatchNormalization()(hidden))
    model = build_image_classifier(keras.Model(inputs, hidden), classes=CLASSES)
    assert [variable.path for variable in model.backbone.trainable_variables] == [
        "below/kernel",
        "above/kernel",
        "above/bias",
    ]
    assert len(model.float32_copy().trainable_variables) == len(model.trainable_variables)


def test_it_can_be_trained_when_asked_for(pixels):
    model = build_image_classifier(tiny_backbone(), classes=CLASSES, train_batch_norm=True)
    assert all(layer.trainable for layer in normalisations(model.backbone))
    assert all(layer.trainable for layer in normalisations(model.float32_copy().backbone))
    assert not np.array_equal(model(pixels, training=True), model(pixels, training=False))


def tuned_accuracy(*, train_batch_norm):
    """Accuracy in inference mode after whole-network tuning on darker images in batches of four."""
    backbone = tiny_backbone()
    bright, _ = images(64, seed=1)
    # Statistics as pretraining on brighter images leaves them.
    for layer in normalisations(backbone):
        entering = np.asarray(keras.Model(backbone.input, layer.input)(bright.astype(np.float32)))
        layer.moving_mean.assign(entering.mean(axis=(0, 1, 2)))
        layer.moving_variance.assign(entering.var(axis=(0, 1, 2)))
    model = build_image_classifier(
        backbone, classes=CLASSES, train_batch_norm=train_batch_norm, dropout_rate=0.0
    )
    pixels, labels = images(192, seed=2)
    pixels = pixels // 2
    model.compile(
        keras.optimizers.Adam(0.001),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit({"pixels": pixels[:128]}, labels[:128], batch_size=4, epochs=1, shuffle=False, verbose=0)
    logits = np.asarray(model({"pixels": pixels[128:]}))
    return float((logits.argmax(axis=1) == labels[128:]).mean())


def test_accuracy_does_not_collapse_in_inference_mode():
    """Keras's oldest complaint about transfer learning, and that it is the default which cures it."""
    assert tuned_accuracy(train_batch_norm=False) > 0.9
    assert tuned_accuracy(train_batch_norm=True) < 0.75


def test_a_network_of_any_size_gets_the_size_asked_for(pixels):
    model = build_image_classifier(tiny_backbone((None, None, 3)), classes=CLASSES, image_size=(SIZE, 48))
    assert tuple(model.input["pixels"].shape) == (None, SIZE, 48, 3)
    assert build_image_classifier(tiny_backbone((None, None, 3)), classes=CLASSES).image_size == (224, 224)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 48}, WeightsError, "48 x 48"),
        ({"weights": None}, ConfigError, "go with a backbone's name"),
        ({"dtype": "float32"}, ConfigError, "go with a backbone's name"),
        ({"classes": ("one",)}, ConfigError, "at least 2"),
        ({"dropout_rate": 1.0}, ConfigError, "dropout_rate"),
        ({"aspect": "squash"}, ConfigError, "aspect"),
    ],
)
def test_what_does_not_fit_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        build_image_classifier(tiny_backbone(), **{"classes": CLASSES, **options})


def test_a_network_of_something_else_is_refused():
    text = keras.Input((None,), dtype="int32")
    network = keras.Model(text, keras.layers.Embedding(10, 4)(text))
    with pytest.raises(WeightsError, match="three colours"):
        build_image_classifier(network, classes=CLASSES, image_size=SIZE)


def test_max_length_is_for_texts(classifier):
    with pytest.raises(ConfigError, match="image_size"):
        classifier.encode_splits({}, 128)
