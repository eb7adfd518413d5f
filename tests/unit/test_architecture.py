"""What caches and checkpoints know of a model beside its weights."""

import keras
import pytest

from tfapp.models.architecture import architecture_of


def network(scale=1.0, strides=1, activation="relu", add=False):
    pixels = keras.Input((8, 8, 3))
    scaled = keras.layers.Rescaling(scale)(pixels)
    hidden = keras.layers.Conv2D(3, 3, strides=strides, padding="same", activation=activation)(scaled)
    if add:
        hidden = keras.layers.Add()([hidden, scaled])
    return keras.Model(pixels, keras.ops.sum(hidden, axis=(1, 2)))


def test_models_built_alike_are_the_same_whatever_their_names_and_weights():
    assert architecture_of(network()) == architecture_of(network())


@pytest.mark.parametrize("change", [{"scale": 2.0}, {"strides": 2}, {"activation": "tanh"}, {"add": True}])
def test_what_changes_the_answers_changes_the_checksum(change):
    assert architecture_of(network(**change)) != architecture_of(network())


def test_texts_have_one_too(tiny_classifier):
    twin = type(tiny_classifier).from_config(tiny_classifier.get_config())
    assert architecture_of(tiny_classifier) == architecture_of(twin)
