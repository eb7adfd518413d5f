"""RandAugment: two operations an image, drawn from fourteen."""

from __future__ import annotations

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._operations import OPERATIONS, operate
from tfapp.data.augment._pixels import rounded

_STEPS = 2


def rand_augment(pixels: tf.Tensor, draws: Draws, *, rand_augment: float) -> tf.Tensor:
    """Does two operations to each image, drawn for it alone, all at one strength.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        draws: Random numbers of the batch.
        rand_augment: Strength, 0 to 1; the paper's magnitude 9 of 30 is 0.3.

    Returns:
        uint8 ``(batch, height, width, 3)``.

    Reference:
        Cubuk et al. 2020, RandAugment: Practical Automated Data Augmentation with a Reduced Search Space,
        arXiv:1909.13719.
    """
    pixels = rounded(pixels)
    for step in range(_STEPS):
        operation = draws.below(f"rand_augment {step}", len(OPERATIONS))
        pixels = operate(pixels, operation, rand_augment * draws.sign(f"rand_augment sign {step}"))
    return pixels
