"""What processing, storing and sending does to images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfapp.data.corruptions._levels import Image, level


def contrast(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Pulls every value towards the mean of its channel."""
    kept = level(image, severity, at_32=(0.75, 0.5, 0.4, 0.3, 0.15), at_224=(0.4, 0.3, 0.2, 0.1, 0.05))
    mean: Image = image.mean(axis=(0, 1), keepdims=True)
    return mean + np.float32(kept) * (image - mean)


def saturate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Strengthens colours; greys stay grey.

    ImageNet-C weakens colours in its first two severities, so that these are not ordered; ours all go the
    one way.
    """
    factor = level(image, severity, at_32=(1.25, 1.5, 1.8, 2.2, 2.8), at_224=(1.5, 2.0, 3.0, 5.0, 20.0))
    value: Image = image.max(axis=2, keepdims=True)
    saturation = 1.0 - image.min(axis=2, keepdims=True) / np.maximum(value, 1e-6)
    most = np.minimum(factor, 1.0 / np.maximum(saturation, 1e-6)).astype(np.float32)
    stronger: Image = value - (value - image) * most
    return stronger


def pixelate(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Shows the image in fewer, larger pixels."""
    share = level(image, severity, at_32=(0.95, 0.9, 0.85, 0.75, 0.65), at_224=(0.6, 0.5, 0.4, 0.3, 0.25))
    size = [int(side * share) for side in image.shape[:2]]
    small = tf.image.resize(image, size, method="area")
    large: Image = tf.image.resize(small, image.shape[:2], method="nearest").numpy()
    return large


def jpeg_compression(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Stores the image as JPEG of low quality and reads it again."""
    quality = level(image, severity, at_32=(80, 65, 58, 50, 40), at_224=(25, 18, 15, 10, 7))
    grey_levels = np.rint(image * 255.0).astype(np.uint8)
    stored = tf.io.encode_jpeg(grey_levels, quality=round(quality))
    read: Image = tf.io.decode_jpeg(stored, dct_method="INTEGER_ACCURATE").numpy() / np.float32(255.0)
    return read
