"""Pictures of a robustness report, as PNG that a page can hold in itself."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.evaluation.robustness.curve import RobustnessCurve

_MOST_AMPLIFIED = 32.0


def example_pictures(
    original: npt.NDArray[np.uint8], adversarial: npt.NDArray[Any]
) -> tuple[str, str, str, float]:
    """Draws an image, what it was turned into, and their difference.

    Args:
        original: uint8 ``(height, width, 3)``.
        adversarial: The perturbed pixels, of the same shape.

    Returns:
        Three data URIs, and by what the difference was multiplied around middle grey.
    """
    made = np.clip(np.rint(adversarial), 0, 255).astype(np.uint8)
    delta = np.asarray(adversarial, np.float64) - original
    largest = float(np.abs(delta).max())
    factor = min(_MOST_AMPLIFIED, 127.0 / largest) if largest else 1.0
    shown = np.clip(np.rint(127.5 + factor * delta), 0, 255).astype(np.uint8)
    return _picture(original), _picture(made), _picture(shown), factor


def _picture(pixels: npt.NDArray[np.uint8]) -> str:
    import tensorflow as tf

    return _uri(bytes(tf.io.encode_png(pixels, compression=9).numpy()))


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def draw_curve(curve: RobustnessCurve) -> str:
    """Draws robust accuracy over epsilon with its intervals, from the clean accuracy at 0.

    Args:
        curve: The curve.

    Returns:
        A data URI.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = curve.points[0]
    epsilons = [0.0, *(point.epsilon for point in curve.points)]
    shares = [first.clean_accuracy, *(point.robust_accuracy for point in curve.points)]
    ends = [first.clean_interval95, *(point.interval95 for point in curve.points)]
    levels = first.norm == "linf"
    across = [255 * epsilon if levels else epsilon for epsilon in epsilons]
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(across, [low for low, _ in ends], [high for _, high in ends], color="#c9d9ea", lw=0)
    axes.plot(across, shares, marker="o", color="#1f5d94", lw=2)
    unit = {"linf": "grey levels of 255", "words": "share of words"}.get(first.norm, first.norm)
    axes.set(xlabel=f"epsilon ({unit})", ylabel="accuracy", ylim=(-0.02, 1.02), xlim=(0, None))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return _uri(buffer.getvalue())
