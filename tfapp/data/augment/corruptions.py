"""Common corruptions as an augmentation of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import rounded
from tfapp.data.corruptions import SMALLEST_SIDE, corrupt_image
from tfapp.errors import ConfigError

_MOST = 2**31 - 1


def corruptions(
    pixels: tf.Tensor,
    draws: Draws,
    *,
    corruptions: Sequence[str],
    severity: float = 3,
    corruption_fraction: float = 0.5,
) -> tf.Tensor:
    """Corrupts some images, each in one way and at one severity, drawn for it alone.

    A model that trains on the corruptions that it is measured with has seen the test: train on some
    families and measure on the others.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255, 32 pixels or more a side.
        draws: Random numbers of the batch.
        corruptions: Keys of `IMAGE_CORRUPTIONS` to draw from.
        severity: Highest severity, 1 to 5; each from 1 up to it is equally likely.
        corruption_fraction: Probability that an image is corrupted, 0 to 1.

    Returns:
        uint8 ``(batch, height, width, 3)``.

    Raises:
        ConfigError: When the images are smaller.
    """
    sides = [side for side in pixels.shape[1:3] if side is not None]
    if sides and min(sides) < SMALLEST_SIDE:
        raise ConfigError(
            f"images of {' x '.join(map(str, sides))} pixels cannot be corrupted: {SMALLEST_SIDE} or more a "
            "side are needed; leave augment's corruptions out, or build the model with a larger image_size."
        )
    names = tuple(corruptions)

    def corrupt(
        images: npt.NDArray[np.uint8],
        hit: npt.NDArray[np.bool_],
        kind: npt.NDArray[np.int32],
        strength: npt.NDArray[np.int32],
        seeds: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.uint8]:
        changed = images.copy()
        for row in np.flatnonzero(hit).tolist():
            changed[row] = corrupt_image(images[row], names[kind[row]], int(strength[row]), int(seeds[row]))
        return changed

    draws, shape = draws.within("corruptions"), pixels.shape
    drawn = (
        draws.chance("hit", corruption_fraction),
        draws.below("kind", len(names)),
        1 + draws.below("severity", int(severity)),
        draws.below("seed", _MOST),
    )
    changed = tf.numpy_function(corrupt, [rounded(pixels), *drawn], tf.uint8, stateful=False)
    return tf.ensure_shape(changed, shape)
