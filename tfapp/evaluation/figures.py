"""Pictures of an evaluation: its confusion matrix, and its confidences against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from tfapp.evaluation.calibration import IntArray, Reliability
from tfapp.fonts import families_for

if TYPE_CHECKING:
    from tfapp.evaluation.report import Evaluation

_NAME_LETTERS = 28
_CLASSES_DRAWN = 150


def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draws the confusion matrix: colour is the share of the true class's rows, numbers are rows.

    Of more than 150 classes only the most confused are drawn, so that the picture stays bounded.

    Args:
        evaluation: What to draw.
        path: The PNG file to write.
    """
    drawn = _most_confused(evaluation.confusion)
    size = len(drawn)
    shares = evaluation.confusion / np.maximum(evaluation.confusion.sum(axis=1, keepdims=True), 1)
    counts, shares = evaluation.confusion[np.ix_(drawn, drawn)], shares[np.ix_(drawn, drawn)]
    side = size * float(np.interp(size, [2, 10, 30, 150], [1.0, 0.6, 0.36, 0.18]))
    letters = float(np.interp(size, [10, 30, 150], [10, 8, 7]))
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # the saved picture grows around it, by its labels
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0))
    names = [_label(evaluation.classes[index], index) for index in drawn.tolist()]
    slant: dict[str, Any] = {"rotation": 45 if size <= 10 else 90, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(size), names, va="center" if size > 10 else "top", **slant)
    axes.set_yticks(range(size), names)
    axes.tick_params(labelsize=letters, length=0)
    axes.set(xlabel="predicted", ylabel="true")
    title = f"{evaluation.split}: {len(evaluation):,} rows, accuracy {evaluation.accuracy.value:.3f}"
    if size < len(evaluation.classes):
        title += f"; the {size} most confused of {len(evaluation.classes):,} classes"
    axes.set_title(title)
    axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=letters - 1)
    height = min(1.0, 4 / side)
    bar = axes.inset_axes((1 + 0.15 / side, 1 - height, 0.18 / side, height))
    figure.colorbar(image, cax=bar, label="share of the true class", ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    _save(figure, path)


def draw_reliability(evaluation: Evaluation, path: Path) -> None:
    """Draws accuracy against confidence and how many rows each bin holds, before and after the temperature.

    Args:
        evaluation: What to draw.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    grid: Any = figure.subplots(2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": [3, 1]})
    columns = ((1.0, evaluation.reliability), (evaluation.temperature, evaluation.reliability_calibrated))
    for column, (temperature, bins) in enumerate(columns):
        _draw_bins(grid[0, column], grid[1, column], bins)
        grid[0, column].set_title(f"temperature {temperature:.3g}: ECE {bins.ece:.4f}")
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("rows")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"{evaluation.split}: {len(evaluation):,} rows")
    _save(figure, path)


def _most_confused(confusion: IntArray) -> IntArray:
    """Picks the classes with the most mistakes, theirs or taken for them, in their order; all if few."""
    wrong = confusion - np.diag(np.diag(confusion))
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return np.sort(np.argsort(-mistakes, kind="stable")[:_CLASSES_DRAWN])


def _draw_bins(upper: Any, lower: Any, bins: Reliability) -> None:
    """Draws accuracy and mean confidence of each bin above, and its rows below."""
    edges = np.linspace(0, 1, len(bins.rows) + 1)
    filled = np.flatnonzero(bins.rows)
    left, width = edges[filled], edges[1]
    upper.bar(
        left,
        bins.accuracy[filled],
        width=width,
        align="edge",
        color="#7ba7d0",
        edgecolor="white",
        label="accuracy",
    )
    upper.hlines(
        bins.confidence[filled], left, left + width, color="#b5302a", linewidth=2.5, label="mean confidence"
    )
    upper.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--", label="perfectly calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    lower.bar(left, bins.rows[filled], width=width, align="edge", color="0.6", edgecolor="white")
    lower.set(xlabel="confidence", yscale="log", ylim=(0.7, 2 * bins.rows.max()))
    lower.yaxis.set_major_formatter("{x:,.0f}")


def _label(name: str, index: int) -> str:
    """Words a class so that it can be drawn: cut if long, its number if no font has its letters."""
    if families_for([name])[1]:
        return f"class {index}"
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    """Renders without a display, taking class names literally."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)  # a class may be called "$5"
        text.set_fontfamily(families_for([text.get_text()])[0])
    FigureCanvasAgg(figure)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)
