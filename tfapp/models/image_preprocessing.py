"""What the families of image networks do to pixels, inside the graph: raw 0..255 RGB goes in."""

from __future__ import annotations

from typing import Literal, get_args

import keras
import numpy as np

from tfapp.errors import WeightsError

Mode = Literal["torch", "tf", "caffe", "open_nsfw", "none"]

# The mean and the spread of red, green and blue that each family takes from, and divides, the pixels by.
_STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "tf": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "open_nsfw": ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),
}


def normalised(pixels: keras.KerasTensor, mode: Mode) -> keras.KerasTensor:
    """Adds a family's normalisation of pixels to a graph, as one stock layer.

    Args:
        pixels: RGB ``(batch, height, width, 3)``, 0 to 255.
        mode: ``"torch"`` takes ImageNet's means away and divides by its deviations, ``"tf"`` scales to -1..1,
            ``"caffe"`` and ``"open_nsfw"`` take means away, ``"none"`` changes nothing. Channels stay in the
            order red, green, blue: for networks that were trained on blue, green, red see
            `take_red_first`.

    Returns:
        float32 ``(batch, height, width, 3)``.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"unknown preprocessing {mode!r}")
    if mode == "none":
        return pixels
    mean, spread = np.array(_STATISTICS[mode])
    layer = keras.layers.Rescaling(
        scale=(1.0 / spread).tolist(), offset=(-mean / spread).tolist(), dtype="float32", name="preprocessing"
    )
    return layer(pixels)


def take_red_first(convolution: keras.layers.Layer) -> None:
    """Lets the first convolution of a network that was trained on blue, green, red take red, green, blue.

    The kernel is turned around instead of the pixels: the same numbers without an operation in the graph.

    Args:
        convolution: The network's first convolution, which is changed in place.

    Raises:
        WeightsError: If it does not take three channels.
    """
    kernel = np.asarray(convolution.kernel)
    if kernel.ndim != 4 or kernel.shape[2] != 3:
        raise WeightsError(f"{convolution.name} does not take the three channels of an image.")
    convolution.kernel.assign(kernel[:, :, ::-1])
