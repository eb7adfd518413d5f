"""Weather and light; every texture is drawn, none is a photograph."""

from __future__ import annotations

import numpy as np

from tfapp.data.corruptions._fields import filtered, fractal, trail
from tfapp.data.corruptions._levels import Image, level

_ICE = np.array([0.86, 0.94, 1.0], np.float32)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def brightness(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Raises the value of every colour (of hue, saturation and value) by the same amount."""
    more = level(image, severity, at_32=(0.05, 0.1, 0.15, 0.2, 0.3), at_224=(0.1, 0.2, 0.3, 0.4, 0.5))
    value: Image = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + np.float32(more), 1.0)
    brighter: Image = np.where(value > 0.0, image * (raised / np.maximum(value, 1e-6)), raised)
    return brighter


def fog(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Lays a cloudy field over the image and weakens what lies behind."""
    thickness = np.float32(
        level(image, severity, at_32=(0.2, 0.5, 0.75, 1.0, 1.5), at_224=(1.5, 2.0, 2.5, 2.8, 3.2))
    )
    cloud = fractal(image.shape[:2], rng, decay=1.8)[..., np.newaxis]
    brightest = np.maximum(image.max(), 1e-3)
    hidden: Image = (image + thickness * cloud) * (brightest / (brightest + thickness))
    return hidden


def frost(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Grows needles of ice over the image: ridges of a fine field, in patches of a coarse one.

    ImageNet-C lays six photographs of frost over its images; these are drawn, and look simpler.
    """
    ice = level(image, severity, at_32=(0.3, 0.4, 0.5, 0.6, 0.7), at_224=(0.5, 0.65, 0.75, 0.83, 0.92))
    patches = fractal(image.shape[:2], rng, decay=2.0)
    needles = 1.0 - np.abs(2.0 * fractal(image.shape[:2], rng, decay=1.2, coarsest=8) - 1.0)
    texture = (0.3 + 0.7 * patches) * (0.3 + 0.7 * needles**2)
    frozen: Image = image + (ice * texture)[..., np.newaxis].astype(np.float32) * (_ICE - image)
    return frozen


def snow(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Lets flakes fall, blurred by their way down, and whitens the view behind; amounts are ours."""
    share = level(
        image, severity, at_32=(0.01, 0.02, 0.03, 0.05, 0.07), at_224=(0.02, 0.04, 0.06, 0.08, 0.11)
    )
    white = level(image, severity, at_32=(0.05, 0.1, 0.15, 0.2, 0.25), at_224=(0.2, 0.27, 0.33, 0.38, 0.45))
    height, width = image.shape[:2]
    size = max(1, round(min(height, width) / 75))
    cells = (-(-height // size), -(-width // size))
    flakes = (rng.random(cells, np.float32) < share).astype(np.float32)
    flakes = np.kron(flakes, np.ones((size, size), np.float32))[:height, :width]
    path = trail(
        max(4.0, 0.06 * min(height, width)), max(2.0, 0.03 * min(height, width)), rng.uniform(45.0, 135.0)
    )
    falling = filtered(flakes[..., np.newaxis], path)
    pale = np.maximum(image, 0.5 + 1.5 * (image @ _GREY)[..., np.newaxis])
    snowy: Image = image + np.float32(white) * (np.minimum(pale, 1.0) - image) + falling
    return snowy
