"""Perturbed pixels in the whole grey levels of a file or a camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_HALVINGS = 24


def in_grey_levels(
    adversarial: npt.NDArray[np.floating], clean: npt.NDArray[np.uint8], *, epsilon: float, norm: str
) -> npt.NDArray[np.uint8]:
    """Rounds adversarial pixels to the whole grey levels of a file or a camera, within the budget.

    Args:
        adversarial: float32 pixels ``(rows, height, width, 3)`` within the budget.
        clean: The pixels before, of the same shape.
        epsilon: The budget.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        The nearest grey levels within the budget; in ``l2`` those of the longest part of the perturbation
        whose grey levels are within it.
    """
    rounded = np.empty(clean.shape, np.uint8)
    for row, (made, before) in enumerate(zip(adversarial, clean, strict=True)):
        start = before.astype(np.float64)
        delta = made.astype(np.float64) - start
        if norm == "linf":
            most = np.floor(255.0 * epsilon * (1 + 1e-6))
            steps = np.clip(np.rint(delta), -most, most)
        else:
            steps = _shortened(delta, 255.0 * epsilon)
        rounded[row] = np.clip(start + steps, 0, 255).astype(np.uint8)
    return rounded


def _shortened(delta: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
    """Rounds a perturbation; one that rounding lengthens beyond the radius is shortened first."""

    def rounded(share: float) -> npt.NDArray[np.float64]:
        return np.rint(share * delta)

    def inside(share: float) -> bool:
        return bool(np.sqrt(np.sum(rounded(share) ** 2)) <= radius)

    if inside(1.0):
        return rounded(1.0)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return rounded(low)
