"""Image networks as backbones: one input of raw pixels, one tensor of features, no classifier on top."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np

from tfapp.errors import WeightsError
from tfapp.models.encoders import SCALING_LAYERS
from tfapp.models.image_preprocessing import Mode, normalised

_logger = logging.getLogger("tfapp")
_HEADS = (keras.layers.Dense, keras.layers.Dropout, keras.layers.Activation, keras.layers.Softmax)
_MAP_RANK, _VECTOR_RANK = 4, 2

Scaling = tuple[Any, Any]
"""What pixels are multiplied by, and what is added then: numbers, or one for each of red, green and blue."""


def pixel_input(image_size: tuple[int, int]) -> keras.KerasTensor:
    """Returns the input of an image model: raw RGB, 0 to 255, float32 ``(batch, height, width, 3)``."""
    return keras.Input((*image_size, 3), dtype="float32", name="pixels")


def on_pixels(
    network: keras.Model, image_size: tuple[int, int], *, mode: Mode = "none", scaling: Scaling | None = None
) -> keras.Model:
    """Puts a network on an input of raw pixels of a fixed size, with its normalisation in the graph.

    Args:
        network: Functional network with one image input and one output; its layers are shared.
        image_size: Height and width of the pixels.
        mode: The normalisation that it expects; see `normalised`.
        scaling: The normalisation as a scale and an offset, instead of a mode.

    Returns:
        A flat functional model from ``pixels`` to the network's output.

    Raises:
        WeightsError: If the network takes no colour images of that size.
    """
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise WeightsError(
            f"the network {network.name!r} has {len(network.inputs)} inputs and {len(network.outputs)} "
            "outputs; an image backbone has one of each."
        )
    pixels = pixel_input(image_size)
    inputs = normalised(pixels, mode)
    if scaling is not None:
        scale, offset = (np.asarray(value, np.float64).tolist() for value in scaling)
        inputs = keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(pixels)
    try:
        output = keras.Function(network.inputs, network.outputs).call([inputs])[0]
    except Exception as error:
        # Layers refuse shapes in many ways.
        height, width = image_size
        raise WeightsError(
            f"the network {network.name!r} takes {tuple(network.inputs[0].shape[1:])}, not pixels of "
            f"{height} x {width} in three colours: {error}"
        ) from error
    return keras.Model(pixels, output, name=network.name)


def without_classifier(network: keras.Model) -> keras.Model:
    """Takes the classifier off a network, which is what ends it in a dense layer.

    Args:
        network: Functional network with one output.

    Returns:
        The network up to what enters its last dense layers, or the network itself.
    """
    tensor = network.outputs[0]
    features = tensor
    while isinstance(layer := tensor._keras_history.operation, _HEADS) and len(tensor.shape) == _VECTOR_RANK:
        tensor = layer._inbound_nodes[tensor._keras_history.node_index].input_tensors[0]
        if isinstance(layer, keras.layers.Dense):
            features = tensor
    if features is network.outputs[0] or len(features.shape) not in (_MAP_RANK, _VECTOR_RANK):
        return network
    _logger.info("%s ends in a classifier, which is taken off", network.name)
    return keras.Model(network.inputs, features, name=network.name)


def check_output(backbone: keras.Model) -> None:
    """Checks that a backbone gives a map or a vector of features.

    Args:
        backbone: From `on_pixels`.

    Raises:
        WeightsError: If it gives something else.
    """
    shape = backbone.outputs[0].shape
    if len(shape) not in (_MAP_RANK, _VECTOR_RANK) or shape[-1] is None:
        raise WeightsError(
            f"the network {backbone.name!r} gives {tuple(shape)}; an image backbone gives features of shape "
            "(batch, height, width, channels) or (batch, channels)."
        )
    if len(shape) == _MAP_RANK and 0 in shape[1:]:
        raise WeightsError(f"the network {backbone.name!r} leaves nothing of so small an image.")


def scales_its_input(backbone: keras.Model) -> bool:
    """Tells whether a network has a layer that scales raw pixels."""
    return any(isinstance(layer, SCALING_LAYERS) for layer in backbone._flatten_layers())


def randomise(backbone: keras.Model, seed: int) -> None:
    """Gives every kernel of a network new random values that the seed decides.

    Args:
        backbone: The network, which is changed in place.
        seed: The seed.
    """
    for number, layer in enumerate(backbone._flatten_layers(include_self=False)):
        kernel = getattr(layer, "kernel", None)
        initializer = getattr(layer, "kernel_initializer", getattr(layer, "depthwise_initializer", None))
        if initializer is None or kernel is None or not hasattr(initializer, "seed"):
            continue
        values = np.random.SeedSequence([seed, number]).generate_state(1)
        config = {**initializer.get_config(), "seed": int(values[0] >> 1)}
        kernel.assign(type(initializer).from_config(config)(kernel.shape))
