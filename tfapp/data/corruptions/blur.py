"""Blur of lenses, of glass and of movement."""

from __future__ import annotations

import numpy as np
import scipy.ndimage  # type: ignore[import-untyped]
import tensorflow as tf

from tfapp.data.corruptions._fields import disk, filtered, trail
from tfapp.data.corruptions._levels import Image, level

_ZOOMS = 11


def gaussian_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Blurs with a bell curve."""
    sigma = level(image, severity, at_32=(0.4, 0.6, 0.7, 0.8, 1.0), at_224=(1, 2, 3, 4, 6), length=True)
    blurred: Image = scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0.0), mode="reflect")
    return blurred


def defocus_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Blurs with a disk, as a lens out of focus does; the small radii are ours, for a disk without blur."""
    radius = level(image, severity, at_32=(0.7, 0.9, 1.1, 1.4, 1.8), at_224=(3, 4, 6, 8, 10), length=True)
    return filtered(image, disk(radius))


def glass_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Takes every pixel from a place nearby, as frosted glass does.

    Drawn in one go, with distances of our own, instead of swapping pixels one after another as ImageNet-C
    does.
    """
    reach = level(image, severity, at_32=(0.5, 0.7, 0.9, 1.1, 1.4), at_224=(1.5, 2, 2.7, 3.5, 5), length=True)
    height, width = image.shape[:2]
    down, across = reach * rng.uniform(-1.0, 1.0, (2, height, width))
    return _displaced(image, down, across)


def motion_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Blurs along a line up to 45 degrees from the horizontal, as a moving camera does."""
    length = level(image, severity, at_32=(6, 6, 6, 8, 9), at_224=(10, 15, 15, 15, 20), length=True)
    sigma = level(image, severity, at_32=(1, 1.5, 2, 2.3, 2.5), at_224=(3, 5, 8, 12, 15), length=True)
    return filtered(image, trail(length, sigma, rng.uniform(-45.0, 45.0)))


def zoom_blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Averages ever larger views of the middle, as a camera that comes nearer does."""
    largest = level(
        image, severity, at_32=(1.05, 1.10, 1.15, 1.20, 1.25), at_224=(1.10, 1.15, 1.20, 1.24, 1.30)
    )
    margins = 0.5 - 0.5 / np.linspace(1.0, largest, _ZOOMS, dtype=np.float32)
    boxes = np.stack([margins, margins, 1.0 - margins, 1.0 - margins], axis=1)
    views = tf.image.crop_and_resize(image[np.newaxis], boxes, [0] * _ZOOMS, image.shape[:2])
    mean: Image = tf.reduce_mean(views, axis=0).numpy()
    return mean


def elastic_transform(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Stretches the image here and squeezes it there; distances of our own, as the published ones jump."""
    side = min(image.shape[:2])
    reach = side * (0.010, 0.015, 0.021, 0.028, 0.036)[severity - 1]
    smooth = 0.06 * side
    fields = rng.uniform(-1.0, 1.0, (2, *image.shape[:2]))
    down, across = (scipy.ndimage.gaussian_filter(field, smooth, mode="reflect") for field in fields)
    return _displaced(image, reach * down / down.std(), reach * across / across.std())


def _displaced(image: Image, down: Image, across: Image) -> Image:
    """Takes every pixel from as far below and to the right as two fields ``(height, width)`` say."""
    rows, places = np.mgrid[: image.shape[0], : image.shape[1]]
    sources = np.stack([rows + down, places + across])
    channels = [
        scipy.ndimage.map_coordinates(image[..., channel], sources, order=1, mode="reflect")
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)
