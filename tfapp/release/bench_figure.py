"""Picture of a benchmark: accuracy against latency, and which artifacts nothing else beats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tfapp.evaluation.report import write_whole
from tfapp.fonts import families_for
from tfapp.release.bench_report import ArtifactBench, BenchReport

_BEST, _OTHER = "#1f6fb4", "#8a8a8a"
# Names are written at this angle. In points: how far apart two are that do not touch, and from which
# difference in height on they cannot.
_SLANT, _APART, _SAME_HEIGHT = 35, 21.0, 75.0
# How far a name moves before a line leads to it.
_LEADER_FROM = 12.0
_LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.6, "shrinkB": 5}
_Point: TypeAlias = tuple[ArtifactBench, float, float]
# Shares of the span of accuracies, left free so that labels fit.
_ABOVE, _BELOW = 0.35, 0.12
_LEAST_SPAN = 0.01
_CAPTION_LETTERS = 120


def draw_front(report: BenchReport, paths: Sequence[Path]) -> None:
    """Draws the accuracy of each artifact against the median time of a single call.

    Args:
        report: What was measured.
        paths: The files to write, whose endings are ``.png`` or ``.svg``.
    """
    points = [
        (each, each.single.p50, each.accuracy)
        for each in report.artifacts
        if each.single is not None and each.single.p50 is not None and each.accuracy is not None
    ]
    best = report.best
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    axes: Any = figure.subplots()
    for each, latency, accuracy in points:
        axes.scatter(
            latency,
            accuracy,
            s=90,
            marker="o" if each.takes_features else "s",
            color=_BEST if each.variant in best else "white",
            edgecolors=_BEST if each.variant in best else _OTHER,
            linewidths=1.6,
            zorder=3,
        )
    front = sorted((latency, accuracy) for each, latency, accuracy in points if each.variant in best)
    axes.step(*zip(*front, strict=True), where="post", color=_BEST, linewidth=1.4, zorder=2)
    _span(axes, [latency for _, latency, _ in points], [accuracy for _, _, accuracy in points])
    timing = points[0][0].single
    threads = f"{timing.threads} thread{'s' if timing.threads > 1 else ''}" if timing else ""
    rows = f"{timing.batch} row{'s' if timing.batch > 1 else ''}" if timing else ""
    axes.set_xlabel(f"median of calls with {rows} on {threads}, ms")
    axes.set_ylabel(f"accuracy on {report.accuracy_on}")
    figure.suptitle(
        f"{report.title}: accuracy against latency", x=0.01, ha="left", fontweight="bold", fontsize=12
    )
    machine = f"{report.machine['processor']}, {report.machine['cores']} cores"
    caption = f"{machine}; asked about {report.asked}"
    if len(caption) > _CAPTION_LETTERS:
        caption = f"{caption[: _CAPTION_LETTERS - 1]}…"
    axes.set_title(
        caption,
        loc="left",
        fontsize=9,
        color="0.35",
        parse_math=False,
        fontfamily=families_for([caption])[0],
    )
    axes.grid(which="both", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes, [each for each, _, _ in points])
    FigureCanvasAgg(figure)
    _name(axes, points, best)
    for path in paths:
        metadata = _METADATA[path.suffix]
        write_whole(path, partial(figure.savefig, dpi=150, metadata=metadata))


# No dates in the files: the same figures give the same picture.
_METADATA: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}}


def _span(axes: Any, latencies: list[float], accuracies: list[float]) -> None:
    """Chooses what the axes show: latencies by factors, accuracies with room for names."""
    axes.set_xscale("log")
    axes.set_xlim(min(latencies) / 1.5, max(latencies) * 1.9)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    span = max(max(accuracies) - min(accuracies), _LEAST_SPAN)
    axes.set_ylim(min(accuracies) - _BELOW * span, max(accuracies) + _ABOVE * span)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.1f} %"))


def _name(axes: Any, points: list[_Point], best: tuple[str, ...]) -> None:
    """Writes names and sizes beside the points, aslant; where two would touch, the right one moves on."""
    axes.figure.canvas.draw()  # only now is it known where points lie
    points_an_inch = 72 / axes.figure.dpi
    taken: list[tuple[float, float]] = []
    for each, latency, accuracy in sorted(points, key=lambda point: point[1]):
        across, up = axes.transData.transform((latency, accuracy)) * points_an_inch
        shift = 0.0
        while any(
            abs(across + shift - other) < _APART and abs(up - height) < _SAME_HEIGHT
            for other, height in taken
        ):
            shift += 1.0
        taken.append((across + shift, up))
        colour = _BEST if each.variant in best else "0.35"
        axes.annotate(
            f"{each.variant}, {each.bytes / 1e6:.1f} MB",
            (latency, accuracy),
            xytext=(5 + shift, 9),
            textcoords="offset points",
            rotation=_SLANT,
            rotation_mode="anchor",
            fontsize=9,
            color=colour,
            arrowprops={**_LEADER, "color": colour} if shift > _LEADER_FROM else None,
        )


def _legend(figure: Figure, axes: Any, artifacts: list[ArtifactBench]) -> None:
    marks = []
    for takes_features, marker in ((True, "o"), (False, "s")):
        takes = [each.takes for each in artifacts if each.takes_features is takes_features]
        if takes:
            words = f"{takes[0]} in" if takes_features else f"{takes[0]} in, made before"
            marks.append(
                axes.scatter([], [], s=60, marker=marker, color="white", edgecolors="0.3", label=words)
            )
    marks.append(
        axes.plot(
            [], [], color=_BEST, marker="o", linewidth=1.4, label="best: none is both faster and more right"
        )[0]
    )
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
