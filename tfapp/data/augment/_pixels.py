"""What several augmentations do with pixels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def rounded(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds pixels to whole grey levels from 0 to 255, uint8 of the same shape."""
    if pixels.dtype == tf.uint8:
        return pixels
    return tf.saturate_cast(pixels + 0.5, tf.uint8)  # the cast cuts fractions off


def columns(*numbers: Any) -> tf.Tensor:
    """Lays numbers ``(batch,)`` side by side, float32 ``(batch, len(numbers))``; scalars serve all rows."""
    shape = tf.shape(next(number for number in numbers if isinstance(number, tf.Tensor)))
    return tf.stack([tf.broadcast_to(tf.cast(number, tf.float32), shape) for number in numbers], axis=1)


def along(values: tf.Tensor) -> tf.Tensor:
    """Shapes values ``(batch,)`` for images, ``(batch, 1, 1, 1)``."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def height_and_width(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The images' height and width as float32 scalars."""
    size = tf.cast(tf.shape(pixels)[1:3], tf.float32)
    return size[0], size[1]


def warped(pixels: tf.Tensor, transforms: tf.Tensor, *, mirror: bool = True) -> tf.Tensor:
    """Moves every image by an affine map of its own, bilinearly.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``.
        transforms: Where the pixel that ends up at ``(x, y)`` comes from, both measured from the middle of
            the image: ``(a, b, c, d, e, f)`` stands for ``(a x + b y + c, d x + e y + f)``; float32
            ``(batch, 6)``.
        mirror: Whether what lies beyond the border is the mirrored image, rather than black.

    Returns:
        float32 ``(batch, height, width, 3)``.
    """
    height, width = height_and_width(pixels)
    x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    a, b, c, d, e, f = tf.unstack(transforms, axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pixels, tf.float32),
        transforms=columns(a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y, 0.0, 0.0),
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT" if mirror else "CONSTANT",
    )


def chosen(condition: tf.Tensor, pixels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Takes whole images from ``pixels`` where ``condition`` ``(batch,)`` holds, else from ``others``."""
    # As long rows, images are copied several times faster than value by value.
    rows = (tf.reshape(images, [tf.shape(condition)[0], _values(images)]) for images in (pixels, others))
    return tf.reshape(tf.where(condition[:, tf.newaxis], *rows), tf.shape(pixels))


def _values(pixels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.shape(pixels)[1:])


def pasted(
    pixels: tf.Tensor,
    others: tf.Tensor,
    *,
    top: tf.Tensor,
    left: tf.Tensor,
    bottom: tf.Tensor,
    right: tf.Tensor,
) -> tf.Tensor:
    """Fills a rectangle of every image with what stands there in another.

    Args:
        pixels: ``(batch, height, width, 3)``.
        others: The same, or ``(1, height, width, 3)`` for all; of the same type.
        top: First row of each rectangle, a whole number, float32 ``(batch,)``.
        left: Its first column.
        bottom: The row below its last.
        right: The column after its last.

    Returns:
        Pixels of the same type and shape.
    """
    height, width = tf.shape(pixels)[1], tf.shape(pixels)[2]
    rows, places = tf.range(tf.cast(height, tf.float32)), tf.range(tf.cast(width, tf.float32))
    tall = (rows >= top[:, tf.newaxis]) & (rows < bottom[:, tf.newaxis])
    wide = (places >= left[:, tf.newaxis]) & (places < right[:, tf.newaxis])
    inside = tall[:, :, tf.newaxis] & tf.repeat(wide, 3, axis=1)[:, tf.newaxis]
    flat = (tf.reshape(images, [tf.shape(images)[0], height, 3 * width]) for images in (others, pixels))
    return tf.reshape(tf.where(inside, *flat), tf.shape(pixels))
