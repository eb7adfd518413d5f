"""Random fields and filters that several corruptions are made of."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.fft  # type: ignore[import-untyped]

from tfapp.data.corruptions._levels import Image

_SUBSAMPLES = 5


def fractal(shape: tuple[int, int], rng: np.random.Generator, *, decay: float, coarsest: int = 2) -> Image:
    """Draws a cloudy field: random grids of doubling fineness, each weaker than the one before.

    Args:
        shape: Height and width.
        rng: Random numbers.
        decay: Factor by which each grid is weaker, more than 1; small ones give fine grain.
        coarsest: Cells a side of the coarsest grid, 1 or more.

    Returns:
        float32 ``(height, width)``; its smallest value is 0 and its largest 1.

    Reference:
        Fournier et al. 1982, Computer rendering of stochastic models (the midpoint method that this varies).
    """
    total = np.zeros(shape, np.float32)
    cells, strength = coarsest, 1.0
    while cells <= max(shape):
        grid = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
        total += strength * _along_rows(_along_rows(grid, shape[0]).T, shape[1]).T
        cells, strength = cells * 2, strength / decay
    total -= total.min()
    total /= total.max()
    return total


def _along_rows(grid: Image, length: int) -> Image:
    """Interpolates the rows of a grid linearly, from ``(knots, ...)`` to ``(length, ...)``."""
    places = np.linspace(0.0, len(grid) - 1.0, length)
    before = np.minimum(places.astype(int), len(grid) - 2)
    share = (places - before).astype(np.float32)[:, np.newaxis]
    knots: Image = grid[before] * (1 - share) + grid[before + 1] * share
    return knots


def filtered(image: Image, kernel: npt.NDArray[np.float32]) -> Image:
    """Convolves an image with a kernel, mirrored at its borders.

    Args:
        image: float32 ``(height, width, channels)``.
        kernel: float32 ``(2 r + 1, 2 r + 1)``; it is divided by its sum.

    Returns:
        float32 of the image's shape.
    """
    reach = len(kernel) // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    size = padded.shape[:2]
    spectrum = scipy.fft.rfft2(padded, axes=(0, 1))
    spectrum *= scipy.fft.rfft2(kernel / kernel.sum(), size)[..., np.newaxis]
    whole: Image = scipy.fft.irfft2(spectrum, size, axes=(0, 1))[2 * reach :, 2 * reach :]
    return whole.astype(np.float32)


def disk(radius: float) -> npt.NDArray[np.float32]:
    """Makes the kernel of a lens out of focus: how much of each pixel a disk covers."""
    reach = math.ceil(radius)
    inner = (np.arange(_SUBSAMPLES) - _SUBSAMPLES // 2) / _SUBSAMPLES
    places = (np.arange(-reach, reach + 1)[:, np.newaxis] + inner).ravel()
    covered = (places[:, np.newaxis] ** 2 + places**2 <= radius**2).astype(np.float32)
    kernel: npt.NDArray[np.float32] = covered.reshape(2 * reach + 1, _SUBSAMPLES, -1, _SUBSAMPLES).mean(
        axis=(1, 3)
    )
    return kernel


def trail(length: float, sigma: float, degrees: float) -> npt.NDArray[np.float32]:
    """Makes the kernel of a movement: a line from the middle that fades like half a bell curve.

    Args:
        length: Of the line in pixels.
        sigma: Of the bell curve in pixels.
        degrees: Direction, from the x axis.

    Returns:
        float32 ``(2 r + 1, 2 r + 1)``.
    """
    reach = math.ceil(length)
    steps = np.arange(0.0, length + 0.25, 0.5)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    across = reach + steps * math.cos(math.radians(degrees))
    down = reach + steps * math.sin(math.radians(degrees))
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    right_share, bottom_share = across - left, down - top
    for row, share in ((top, 1.0 - bottom_share), (top + 1, bottom_share)):
        np.add.at(kernel, (row, left), weights * share * (1.0 - right_share))
        np.add.at(kernel, (row, left + 1), weights * share * right_share)
    return kernel[:-1, :-1].astype(np.float32)
