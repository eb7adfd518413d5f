"""The fourteen operations that RandAugment and AugMix choose from, another one for each image of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfapp.data.augment._pixels import along, columns, height_and_width, rounded, warped
from tfapp.data.augment.colour import grey, recoloured, saturated

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
    "sharpness",
)
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
_MOST_SHEAR = 0.3
_MOST_SHIFT = 150 / 331
_MOST_DEGREES = 30.0
_MOST_FACTOR = 0.9
_LOST_BITS = 4.0


def operate(pixels: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Does one operation to each image.

    Images are sorted by the kind of their operation, so that each goes through one kind of work only.

    Args:
        pixels: uint8 ``(batch, height, width, 3)``, at least 3 pixels wide and high.
        operation: Indices into `OPERATIONS`, int32 ``(batch,)``.
        strength: -1 to 1, float32 ``(batch,)``; the sign counts where there are two directions. Moves are
            at most a shear of 0.3, a shift of 0.45 of the side, and 30 degrees; factors of colours 1 +- 0.9;
            posterize takes at most 4 bits; what solarize inverts begins at 255 down to 0.

    Returns:
        uint8 ``(batch, height, width, 3)``.

    Reference:
        Cubuk et al. 2020, RandAugment, arXiv:1909.13719, with the ranges of its ImageNet experiments.
    """
    kinds = tf.gather([_KIND[name] for name in OPERATIONS], operation)
    parts = range(len(_WORK) + 1)
    places = tf.dynamic_partition(tf.range(tf.shape(pixels)[0]), kinds, len(parts))
    done = [tf.gather(pixels, places[0])]
    for part, work in zip(parts[1:], _WORK, strict=True):
        some = (tf.gather(tensor, places[part]) for tensor in (pixels, operation, strength))
        done.append(rounded(work(*some)))
    return tf.reshape(tf.dynamic_stitch(places, done), tf.shape(pixels))


def _move(pixels: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Shears, shifts and turns; what comes in from beyond the border is black."""

    def only(name: str, most: float | tf.Tensor) -> tf.Tensor:
        return tf.where(operation == _NUMBER[name], strength * most, 0.0)

    height, width = height_and_width(pixels)
    angle = only("rotate", _MOST_DEGREES * math.pi / 180.0)
    transforms = columns(
        tf.cos(angle),
        only("shear_x", _MOST_SHEAR) - tf.sin(angle),
        only("translate_x", _MOST_SHIFT * width),
        only("shear_y", _MOST_SHEAR) + tf.sin(angle),
        tf.cos(angle),
        only("translate_y", _MOST_SHIFT * height),
    )
    return warped(pixels, transforms, mirror=False)


def _recolour(pixels: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Blends with black (brightness), with each pixel's grey (saturation), or with the mean (contrast)."""
    values = tf.cast(pixels, tf.float32)
    factor = 1.0 + strength * _MOST_FACTOR
    scale = factor[:, tf.newaxis, tf.newaxis] * tf.eye(3)
    matrix = tf.where(_is(operation, "saturation")[:, tf.newaxis, tf.newaxis], saturated(factor), scale)
    mean = grey(tf.reduce_mean(values, axis=[1, 2]))
    offset = tf.where(_is(operation, "contrast"), (1.0 - factor) * mean, 0.0)
    return recoloured(values, matrix, tf.repeat(offset[:, tf.newaxis], 3, axis=1))


def _retone(pixels: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Looks every value up in a curve of its image and colour channel."""
    levels = tf.range(256.0)
    strength = tf.abs(strength)[:, tf.newaxis, tf.newaxis]
    step = 2.0 ** tf.round(strength * _LOST_BITS)
    solarized = tf.where(levels >= 255.0 * (1.0 - strength), 255.0 - levels, levels)
    images = tf.shape(pixels)[0]
    channel = 3 * tf.range(images)[:, tf.newaxis] + tf.range(3)
    places = tf.cast(pixels, tf.int32) + 256 * channel[:, tf.newaxis, tf.newaxis]
    counts = tf.math.bincount(
        tf.reshape(places, [-1]), minlength=768 * images, maxlength=768 * images, dtype=tf.int32
    )
    counts = tf.cast(tf.reshape(counts, [-1, 3, 256]), tf.float32)
    curves = tf.floor(levels / step) * step + tf.zeros([1, 3, 1])
    for name, curve in (
        ("solarize", solarized),
        ("auto_contrast", _stretched(counts)),
        ("equalize", _equalized(counts)),
    ):
        curves = tf.where(_is(operation, name)[:, tf.newaxis, tf.newaxis], curve, curves)
    return tf.gather(tf.reshape(rounded(curves), [-1]), places)


def _stretched(counts: tf.Tensor) -> tf.Tensor:
    """Curves from the darkest and brightest level that occur to 0 and 255; ``counts`` (n, 3, 256)."""
    levels = tf.range(256.0)
    low = tf.reduce_min(tf.where(counts > 0, levels, 255.0), axis=2, keepdims=True)
    high = tf.reduce_max(tf.where(counts > 0, levels, 0.0), axis=2, keepdims=True)
    return tf.where(high > low, (levels - low) * tf.math.divide_no_nan(255.0, high - low), levels)


def _equalized(counts: tf.Tensor) -> tf.Tensor:
    """Curves after which levels are about equally frequent, as Pillow makes them; ``counts`` (n, 3, 256)."""
    below = tf.cumsum(counts, axis=2, exclusive=True)
    total = tf.reduce_sum(counts, axis=2, keepdims=True)
    brightest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=2)
    most = tf.gather(counts, brightest, batch_dims=2)[..., tf.newaxis]
    step = tf.floor((total - most) / 255.0)
    curve = tf.floor(tf.math.divide_no_nan(below + tf.floor(step / 2.0), step))
    return tf.where(step > 0, curve, tf.range(256.0))


def _sharpen(pixels: tf.Tensor, operation: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Blends with the smoothed image; the pixels of the border stay as they are."""
    del operation
    values = tf.cast(pixels, tf.float32)
    mean = tf.nn.avg_pool2d(values, 3, 1, "VALID")
    inner = values[:, 1:-1, 1:-1]
    change = (9.0 / 13.0) * (inner - mean) * along(strength * _MOST_FACTOR)
    return values + tf.pad(change, [[0, 0], [1, 1], [1, 1], [0, 0]])


def _is(operation: tf.Tensor, name: str) -> tf.Tensor:
    return operation == _NUMBER[name]


_WORK: tuple[Callable[..., tf.Tensor], ...] = (_move, _recolour, _retone, _sharpen)
_KIND = {
    **dict.fromkeys(OPERATIONS, 1),
    "identity": 0,
    **dict.fromkeys(("brightness", "saturation", "contrast"), 2),
    **dict.fromkeys(("posterize", "solarize", "auto_contrast", "equalize"), 3),
    "sharpness": 4,
}
