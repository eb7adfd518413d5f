"""Noise of sensors and of transmission."""

from __future__ import annotations

import numpy as np

from tfapp.data.corruptions._levels import Image, level


def gaussian_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Adds noise of one strength everywhere, as in poor light."""
    scale = level(
        image, severity, at_32=(0.04, 0.06, 0.08, 0.09, 0.10), at_224=(0.08, 0.12, 0.18, 0.26, 0.38)
    )
    return image + np.float32(scale) * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Counts few photons: the brighter a place, the more noise."""
    # Between the tables the noise is interpolated, which goes with one over the root of the counts.
    at_32 = (500.0**-0.5, 250.0**-0.5, 100.0**-0.5, 75.0**-0.5, 50.0**-0.5)
    at_224 = (60.0**-0.5, 25.0**-0.5, 12.0**-0.5, 5.0**-0.5, 3.0**-0.5)
    photons = level(image, severity, at_32=at_32, at_224=at_224) ** -2
    return (rng.poisson(image * photons) / photons).astype(np.float32)


def impulse_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Sets some values to black or white, as bit errors do."""
    share = level(
        image, severity, at_32=(0.01, 0.02, 0.03, 0.05, 0.07), at_224=(0.03, 0.06, 0.09, 0.17, 0.27)
    )
    hit = rng.random(image.shape, np.float32) < share
    return np.where(hit, rng.integers(0, 2, image.shape).astype(np.float32), image)


def speckle_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Adds noise in proportion to the brightness."""
    scale = level(image, severity, at_32=(0.06, 0.1, 0.12, 0.16, 0.2), at_224=(0.15, 0.2, 0.35, 0.45, 0.6))
    return image * (1.0 + np.float32(scale) * rng.standard_normal(image.shape, np.float32))
