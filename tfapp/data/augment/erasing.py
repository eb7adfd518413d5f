"""Random erasing: a rectangle of noise hides a part of the image."""

from __future__ import annotations

import math

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import height_and_width, pasted, rounded

_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)


def erasing(pixels: tf.Tensor, draws: Draws, *, erasing: float) -> tf.Tensor:
    """Fills a rectangle of some images with noise.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        draws: Random numbers of the batch.
        erasing: Probability that an image loses a rectangle of 2 % to 33 % of its area, 0 to 1.

    Returns:
        uint8 ``(batch, height, width, 3)``.

    Reference:
        Zhong et al. 2020, Random Erasing Data Augmentation, arXiv:1708.04896.
    """
    pixels = rounded(pixels)
    height, width = height_and_width(pixels)
    area = draws.uniform("erasing area", *_AREAS) * height * width
    aspect = tf.exp(draws.uniform("erasing aspect", math.log(_ASPECTS[0]), math.log(_ASPECTS[1])))
    high = tf.minimum(tf.round(tf.sqrt(area * aspect)), height)
    wide = tf.minimum(tf.round(tf.sqrt(area / aspect)), width)
    top = tf.floor(draws.uniform("erasing top") * (height - high + 1.0))
    left = tf.floor(draws.uniform("erasing left") * (width - wide + 1.0))
    bottom = tf.where(draws.chance("erasing", erasing), top + high, top)
    # One field of noise serves the batch: every image shows another part of it.
    noise = draws.noise("erasing noise", tf.shape(pixels)[1:])[tf.newaxis]
    return pasted(pixels, noise, top=top, left=left, bottom=bottom, right=left + wide)
