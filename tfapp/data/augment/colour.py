"""Brightness, contrast, saturation and hue: one linear map of each image's colours."""

from __future__ import annotations

import math

import tensorflow as tf

from tfapp.data.augment._draws import Draws

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness that is seen (ITU-R BT.601)."""
# Brightness and two colour differences: hue turns the plane of the latter.
_TO_YIQ = ((0.299, 0.5959, 0.2115), (0.587, -0.2746, -0.5227), (0.114, -0.3213, 0.3112))


def colour(
    pixels: tf.Tensor,
    draws: Draws,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> tf.Tensor:
    """Changes the colours of each image in a way of its own; one pass over the pixels does all of it.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        draws: Random numbers of the batch.
        brightness: Largest share of the range of 255 that is added or taken away, 0 to 1.
        contrast: Differences from the image's mean are multiplied by 1 minus this up to 1 plus this, 0 to 1.
        saturation: Differences from grey are multiplied by 1 minus this up to 1 plus this, 0 to 1.
        hue: Largest turn of the colour circle to either side, as a share of it, 0 to 0.5.

    Returns:
        float32 ``(batch, height, width, 3)``, not yet clipped to 0..255.

    Reference:
        Howard 2013, Some Improvements on Deep Convolutional Neural Network Based Image Classification,
        arXiv:1312.5402.
    """
    pixels = tf.cast(pixels, tf.float32)
    matrix, offset = tf.eye(3, batch_shape=[draws.images]), tf.zeros([draws.images, 3])
    if brightness:
        offset += 255.0 * draws.uniform("brightness", -brightness, brightness)[:, tf.newaxis]
    if contrast:
        factor = draws.uniform("contrast", 1.0 - contrast, 1.0 + contrast)
        mean = grey(tf.reduce_mean(pixels, axis=[1, 2])) + offset[:, 0]
        matrix *= factor[:, tf.newaxis, tf.newaxis]
        offset = offset * factor[:, tf.newaxis] + ((1.0 - factor) * mean)[:, tf.newaxis]
    # The steps above change all colours alike, so that what follows may be multiplied from the right.
    if saturation:
        turn = saturated(draws.uniform("saturation", 1.0 - saturation, 1.0 + saturation))
        matrix, offset = _then(matrix, offset, turn)
    if hue:
        matrix, offset = _then(matrix, offset, _turned(draws.uniform("hue", -hue, hue)))
    return recoloured(pixels, matrix, offset)


def grey(colours: tf.Tensor) -> tf.Tensor:
    """The brightness that is seen of colours ``(..., 3)``, float32 ``(...)``."""
    return tf.reduce_sum(tf.cast(colours, tf.float32) * tf.constant(LUMA), axis=-1)


def saturated(factor: tf.Tensor) -> tf.Tensor:
    """Maps that multiply differences from grey by ``factor`` ``(batch,)``, float32 ``(batch, 3, 3)``."""
    factor = factor[:, tf.newaxis, tf.newaxis]
    return factor * tf.eye(3) + (1.0 - factor) * tf.repeat(tf.constant(LUMA)[:, tf.newaxis], 3, axis=1)


def recoloured(pixels: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Multiplies every colour, as a row, by its image's matrix ``(batch, 3, 3)`` and adds ``(batch, 3)``."""
    images, height, width = (tf.shape(pixels)[axis] for axis in range(3))
    multiplied = tf.matmul(tf.reshape(pixels, [images, height * width, 3]), matrix)
    # Added line by line, which is twice as fast as colour by colour.
    lines = tf.reshape(multiplied, [images, height, 3 * width]) + tf.tile(offset, [1, width])[:, tf.newaxis]
    return tf.reshape(lines, tf.shape(pixels))


def _then(matrix: tf.Tensor, offset: tf.Tensor, turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return matrix @ turn, tf.squeeze(offset[:, tf.newaxis] @ turn, axis=1)


def _turned(share: tf.Tensor) -> tf.Tensor:
    """Maps that turn the colour circle by a share of it and keep the brightness that is seen."""
    angle = share * (2.0 * math.pi)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    none, one = tf.zeros_like(angle), tf.ones_like(angle)
    turn = tf.stack([one, none, none, none, cosine, sine, none, -sine, cosine], axis=1)
    there = tf.constant(_TO_YIQ)
    return there @ tf.reshape(turn, [-1, 3, 3]) @ tf.linalg.inv(there)
