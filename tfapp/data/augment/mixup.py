"""MixUp: two images blended, and their labels with them."""

from __future__ import annotations

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import along


def mixup(pixels: tf.Tensor, labels: tf.Tensor, draws: Draws, *, mixup: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image and its label with the next ones of the batch.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        labels: Distributions over the classes, float32 ``(batch, num_classes)``.
        draws: Random numbers of the batch.
        mixup: Both parameters of the Beta distribution of the share that an image keeps, more than 0.

    Returns:
        Pixels, float32, and labels, both of the same shape.

    Reference:
        Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412.
    """
    kept = draws.shares("mixup", 2, mixup)[:, 0]
    pixels, share = tf.cast(pixels, tf.float32), along(kept)
    mixed = pixels * share + tf.roll(pixels, 1, axis=0) * (1.0 - share)
    share = kept[:, tf.newaxis]
    return mixed, labels * share + tf.roll(labels, 1, axis=0) * (1.0 - share)
