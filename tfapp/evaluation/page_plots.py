"""Plots of a report, as parts of its page: they take the page's colours, by day and by night."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfapp.evaluation.page_frame import Markup, element, name

PLOT_STYLE = """
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; margin: .8rem 0; }
.plots > div { flex: 1 1 20rem; max-width: 28rem; min-width: 0; }
.bars { display: grid; grid-template-columns: auto 1fr auto; gap: .3rem .7rem; align-items: center;
        font-size: .9rem; }
.bars i { display: block; height: .9rem; background: rgb(var(--bar)); border-radius: 3px; min-width: 2px; }
.bars .rail { background: var(--card); border-radius: 3px; }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; max-width: 28rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .bar { fill: rgb(var(--bar)); opacity: .75; }
svg .mean { stroke: var(--bad); stroke-width: 2.5; }
svg .ideal { stroke: var(--soft); stroke-dasharray: 4 3; }
table.confusion { border-spacing: 2px; border-collapse: separate; }
table.confusion td { text-align: center; padding: .35rem .5rem; border: 0; border-radius: 4px;
                     min-width: 2.6rem; }
table.confusion th { border: 0; padding: .2rem .5rem; text-align: right; max-width: 12rem; overflow: hidden;
                     text-overflow: ellipsis; }
table.confusion thead th { vertical-align: bottom; text-align: left; }
table.confusion thead th > span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem;
                                  overflow: hidden; text-overflow: ellipsis; display: inline-block; }
"""
_WIDTH, _HEIGHT = 340.0, 250.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 40.0, 8.0, 8.0, 38.0
# Of a cell whose class is always given: strong, but the number on it stays readable by day and by night.
_STRONGEST = 0.55


def bars(rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Draws horizontal bars.

    Args:
        rows: Label, length (0 or more, in any unit) and what is written beside the bar.

    Returns:
        HTML.
    """
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    cells: list[Markup] = []
    for label, value, shown in rows:
        bar = element("i", style=f"width:{100 * value / longest:.1f}%")
        cells += [element("span", label), element("div", bar, class_="rail"), element("span", shown)]
    return element("div", *cells, class_="bars")


def confusion_table(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> Markup:
    """Draws a confusion matrix: numbers are rows, the strength of a colour is the share of the true class.

    Args:
        classes: Names of the classes.
        confusion: Rows by true class (first axis) and predicted class.

    Returns:
        HTML.
    """
    across = (element("th", element("span", name(label)), title=label, scope="col") for label in classes)
    head = element("tr", element("th", "true \u2193 predicted \u2192"), *across)
    lines = []
    for row, (label, counts) in enumerate(zip(classes, confusion, strict=True)):
        total = sum(counts) or 1
        cells = []
        for column, count in enumerate(counts):
            colour = "var(--bar)" if row == column else "var(--wrong)"
            # The root makes a few mistakes among many visible.
            strength = _STRONGEST * (count / total) ** 0.5
            style = f"background:rgba({colour},{strength:.3f})" if count else None
            title = f"{label} taken for {classes[column]}: {count:,} of {sum(counts):,}"
            cells.append(element("td", f"{count:,}", style=style, title=title))
        lines.append(element("tr", element("th", name(label), title=label, scope="row"), *cells))
    table = element("table", element("thead", head), element("tbody", *lines), class_="confusion")
    return element("div", table, class_="scroll", tabindex="0")


def reliability_plot(bins: Mapping[str, Sequence[float]], caption: str) -> Markup:
    """Draws how often answers of each confidence are right.

    Args:
        bins: ``rows``, ``confidence`` and ``accuracy`` of equal-width bins over [0, 1].
        caption: What is written above it.

    Returns:
        HTML.
    """
    count = len(bins["rows"])
    parts: list[Markup] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            _line(0, share, 1, share, "grid"),
            element("text", f"{share:g}", x=f"{_LEFT - 6:.0f}", y=f"{_y(share) + 4:.1f}", text_anchor="end"),
            element("text", f"{share:g}", x=f"{_x(share):.1f}", y=f"{_y(0) + 15:.1f}", text_anchor="middle"),
        ]
    for number in range(count):
        rows, accuracy = int(bins["rows"][number]), float(bins["accuracy"][number])
        if not rows:
            continue
        left, right = number / count, (number + 1) / count
        title = (
            f"{rows:,} rows of confidence {left:.2f} to {right:.2f}: {accuracy:.1%} right, "
            f"mean confidence {bins['confidence'][number]:.1%}"
        )
        bar: dict[str, Any] = {
            "x": f"{_x(left) + 1:.1f}",
            "y": f"{_y(accuracy):.1f}",
            "width": f"{_x(right) - _x(left) - 2:.1f}",
            "height": f"{_y(0) - _y(accuracy):.1f}",
        }
        parts += [
            element("rect", element("title", title), class_="bar", **bar),
            _line(left, bins["confidence"][number], right, bins["confidence"][number], "mean"),
        ]
    parts.append(_line(0, 0, 1, 1, "ideal"))
    middle = f"{_x(0.5):.1f}"
    parts.append(element("text", "confidence", x=middle, y=f"{_HEIGHT - 6:.0f}", text_anchor="middle"))
    upright = f"translate(11 {_y(0.5):.1f}) rotate(-90)"
    parts.append(element("text", "accuracy", transform=upright, text_anchor="middle"))
    picture = element(
        "svg", *parts, viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}", role="img", aria_label=caption
    )
    return element("div", element("h3", caption), picture)


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    ends = {"x1": _x(x1), "y1": _y(y1), "x2": _x(x2), "y2": _y(y2)}
    return element("line", class_=kind, **{end: f"{place:.1f}" for end, place in ends.items()})
