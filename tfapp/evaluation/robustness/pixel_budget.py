"""How far attacks moved pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError

BOUNDS = (0.0, 255.0)
Pixels = npt.NDArray[np.floating]
# An attack may be off its budget by the rounding of float32 sums, not by more.
_ROUNDING = 1e-3


def check_budget(name: str, made: Pixels, clean: npt.NDArray[np.uint8], *, epsilon: float, norm: str) -> None:
    """Refuses what is no image or is further away than the budget allows.

    Args:
        name: The attack.
        made: What it made ``(rows, ...)``.
        clean: The pixels before.
        epsilon: The budget.
        norm: ``"linf"`` or ``"l2"``.

    Raises:
        ConfigError: If a row is beyond the budget, out of 0..255, or not finite.
    """
    if not len(made):
        return
    reach = perturbation_norms(made, clean, norm)
    worst = float(reach.max()) if np.all(np.isfinite(made)) else float("nan")
    inside = bool(np.all((made >= BOUNDS[0]) & (made <= BOUNDS[1])))
    if not worst <= epsilon * (1 + _ROUNDING) + 1e-6 or not inside:
        raise ConfigError(
            f"the attack {name!r} goes beyond its budget: a perturbation of {norm} {worst:.6g} where epsilon "
            f"is {epsilon:.6g}{'' if inside else ', and pixels outside 0..255'}. Its figures would be wrong."
        )


def perturbation_norms(made: Pixels, clean: npt.NDArray[Any], norm: str) -> npt.NDArray[np.float64]:
    """Measures perturbations.

    Args:
        made: Perturbed pixels ``(rows, ...)``.
        clean: The pixels before.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        ``(rows,)``, as fractions of 0..255.
    """
    sizes = np.zeros(len(made))
    for row, (one, other) in enumerate(zip(made, clean, strict=True)):
        delta = (one.astype(np.float64) - other).ravel() / 255.0
        sizes[row] = np.abs(delta).max() if norm == "linf" else np.sqrt(np.sum(delta**2))
    return sizes
