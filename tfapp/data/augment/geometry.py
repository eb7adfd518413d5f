"""Flips, rotation and random crops, done together so that pixels are interpolated once."""

from __future__ import annotations

import math

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import chosen, columns, height_and_width, warped

_ASPECTS = (3 / 4, 4 / 3)
_WHOLE = 1.0 - 1e-5  # a crop as large as its image: rounding must not take it beyond the border, to black


def geometry(
    pixels: tf.Tensor,
    draws: Draws,
    *,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    rotation: float = 0.0,
    crop: float = 1.0,
) -> tf.Tensor:
    """Flips, turns and crops each image in a way of its own; a crop is resized to the whole image.

    Args:
        pixels: uint8 ``(batch, height, width, 3)``.
        draws: Random numbers of the batch.
        horizontal_flip: Whether left and right are exchanged, in every other image.
        vertical_flip: Whether above and below are exchanged, in every other image.
        rotation: Largest angle in degrees, to either side, 0 to 180; corners are filled with the mirrored
            image.
        crop: Smallest share of the area that a crop keeps, more than 0; 1 crops nothing. Its aspect ratio
            lies between 3/4 and 4/3 of the image's.

    Returns:
        uint8 or float32 ``(batch, height, width, 3)``.

    Reference:
        Szegedy et al. 2015, Going Deeper with Convolutions, arXiv:1409.4842 (random crops).
    """
    across = draws.sign("horizontal_flip") if horizontal_flip else tf.ones([draws.images])
    down = draws.sign("vertical_flip") if vertical_flip else tf.ones([draws.images])
    if not rotation and crop == 1.0:
        if horizontal_flip:
            pixels = chosen(across < 0.0, tf.reverse(pixels, [2]), pixels)
        return chosen(down < 0.0, tf.reverse(pixels, [1]), pixels) if vertical_flip else pixels
    wide, high, right, low = _windows(draws, crop)
    if rotation:
        height, width = height_and_width(pixels)
        angle = draws.uniform("rotation", -rotation, rotation) * (math.pi / 180.0)
        cosine, sine = tf.cos(angle), tf.sin(angle)
        x, y = right * width, low * height
        return warped(
            pixels,
            columns(
                across * cosine * wide,
                -across * sine * high,
                across * (cosine * x - sine * y),
                down * sine * wide,
                down * cosine * high,
                down * (sine * x + cosine * y),
            ),
        )
    # Corners in shares of the way from the first pixel's middle to the last's; a flip exchanges them.
    top, bottom = 0.5 + down * (low - high / 2.0), 0.5 + down * (low + high / 2.0)
    left, end = 0.5 + across * (right - wide / 2.0), 0.5 + across * (right + wide / 2.0)
    return tf.image.crop_and_resize(
        pixels, tf.stack([top, left, bottom, end], axis=1), tf.range(draws.images), tf.shape(pixels)[1:3]
    )


def _windows(draws: Draws, crop: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Width, height and place of the middle of each crop, as shares of the image measured from its middle."""
    if crop == 1.0:
        whole, middle = tf.ones([draws.images]), tf.zeros([draws.images])
        return whole, whole, middle, middle
    area = draws.uniform("crop", crop, 1.0)
    aspect = tf.sqrt(tf.exp(draws.uniform("aspect", math.log(_ASPECTS[0]), math.log(_ASPECTS[1]))))
    wide = tf.minimum(tf.sqrt(area) * aspect, _WHOLE)
    high = tf.minimum(tf.sqrt(area) / aspect, _WHOLE)
    right = draws.uniform("crop across", -0.5, 0.5) * (1.0 - wide)
    low = draws.uniform("crop down", -0.5, 0.5) * (1.0 - high)
    return wide, high, right, low
