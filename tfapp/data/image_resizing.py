"""Sizes, directions and borders of decoded pixels, in the graph."""

from __future__ import annotations

import tensorflow as tf

BILINEAR_TO = 1.2
"""From this shrinking on, bilinear interpolation passes pixels over, and fine patterns alias."""


def used_part(full: tf.Tensor, size: tf.Tensor, aspect: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the part of an image that is used.

    Args:
        full: The image's height and width, int32 ``(2,)``.
        size: Height and width to resize to, int32 ``(2,)``.
        aspect: ``"crop"`` for the largest part in the centre with the proportions of ``size``; the whole
            image otherwise.

    Returns:
        The part's size and its first corner, int32 ``(2,)`` each.
    """
    if aspect != "crop":
        return full, tf.zeros_like(full)
    share = tf.reverse(tf.cast(full, tf.float32) / tf.cast(size, tf.float32), [0])
    part = tf.clip_by_value(_rounded(share * tf.cast(size, tf.float32)), 1, full)
    # An even rest keeps the part in the centre for every orientation.
    part += (full - part) % 2
    return part, (full - part) // 2


def target_size(full: tf.Tensor, size: tf.Tensor, aspect: str) -> tf.Tensor:
    """Finds the size to which the used part is resized.

    Args:
        full: The image's height and width, int32 ``(2,)``.
        size: Height and width that are wanted, int32 ``(2,)``.
        aspect: ``"pad"`` for what fits into ``size`` in the image's proportions; ``size`` otherwise.

    Returns:
        int32 ``(2,)``.
    """
    if aspect != "pad":
        return size
    scale = tf.reduce_min(tf.cast(size, tf.float32) / tf.cast(full, tf.float32))
    return tf.clip_by_value(_rounded(tf.cast(full, tf.float32) * scale), 1, size)


def resized(pixels: tf.Tensor, size: tf.Tensor, aspect: str) -> tf.Tensor:
    """Resizes pixels: averages over areas where they shrink, interpolates bilinearly elsewhere.

    Args:
        pixels: Of any number type, ``(height, width, 3)``.
        size: Height and width that are wanted, int32 ``(2,)``.
        aspect: ``"stretch"``, ``"crop"`` or ``"pad"``.

    Returns:
        float32 in the range of ``pixels``, ``(*size, 3)``; less than ``size`` before it is padded.
    """
    full = tf.shape(pixels)[:2]
    part, corner = used_part(full, size, aspect)
    target = target_size(full, size, aspect)
    if aspect == "crop":
        pixels = tf.slice(pixels, tf.pad(corner, [[0, 1]]), tf.concat([part, [3]], axis=0))
    shrinks = tf.reduce_any(tf.cast(part, tf.float32) > BILINEAR_TO * tf.cast(target, tf.float32))
    return tf.cond(shrinks, lambda: _averaged(pixels, part, target), lambda: _interpolated(pixels, target))


def _interpolated(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ResizeBilinear(images=pixels[tf.newaxis], size=size, half_pixel_centers=True)[0]


def _averaged(pixels: tf.Tensor, full: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Averages over the areas that fall together; a side that does not shrink is interpolated."""
    small = tf.raw_ops.ResizeArea(images=pixels[tf.newaxis], size=tf.minimum(full, size))[0]
    return tf.cond(tf.reduce_any(full < size), lambda: _interpolated(small, size), lambda: small)


def oriented(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors pixels as an EXIF orientation demands.

    Args:
        pixels: As they are stored, ``(height, width, 3)``.
        orientation: int32, 1 up to 8.

    Returns:
        As they are to be seen, ``(height, width, 3)``, or ``(width, height, 3)`` from orientation 5 on.
    """
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    flip = (orientation - 1) % 4
    axes = tf.boolean_mask([0, 1], tf.stack([flip >= 2, (flip == 1) | (flip == 2)]))
    return tf.reverse(turned, axes)


def padded(pixels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Puts pixels into the centre of black ones.

    Args:
        pixels: At most of that size, ``(height, width, 3)``.
        size: Height and width that are wanted.

    Returns:
        ``(*size, 3)``.
    """
    free = size - tf.shape(pixels)[:2]
    before = free // 2
    sides = tf.stack([before, free - before], axis=1)
    return tf.pad(pixels, tf.concat([sides, [[0, 0]]], axis=0))


def _rounded(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(values), tf.int32)
