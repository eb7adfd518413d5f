"""CutMix: a rectangle of another image pasted in, and the labels mixed by area."""

from __future__ import annotations

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import height_and_width, pasted


def cutmix(
    pixels: tf.Tensor, labels: tf.Tensor, draws: Draws, *, cutmix: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle of the batch's next image into each image.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        labels: Distributions over the classes, float32 ``(batch, num_classes)``.
        draws: Random numbers of the batch.
        cutmix: Both parameters of the Beta distribution of the share of its area that an image keeps, more
            than 0. Rectangles are cut at the border, and labels mixed by what is left of them.

    Returns:
        Pixels, of the type given, and labels, both of the same shape.

    Reference:
        Yun et al. 2019, CutMix: Regularization Strategy to Train Strong Classifiers, arXiv:1905.04899.
    """
    height, width = height_and_width(pixels)
    half = tf.sqrt(draws.shares("cutmix", 2, cutmix)[:, 1]) / 2.0
    row, place = draws.uniform("cutmix row"), draws.uniform("cutmix column")
    top, bottom = (tf.round(tf.clip_by_value(row + side * half, 0.0, 1.0) * height) for side in (-1.0, 1.0))
    left, right = (tf.round(tf.clip_by_value(place + side * half, 0.0, 1.0) * width) for side in (-1.0, 1.0))
    mixed = pasted(pixels, tf.roll(pixels, 1, axis=0), top=top, left=left, bottom=bottom, right=right)
    kept = (1.0 - (bottom - top) * (right - left) / (height * width))[:, tf.newaxis]
    return mixed, labels * kept + tf.roll(labels, 1, axis=0) * (1.0 - kept)
