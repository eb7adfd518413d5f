"""The robustness report: what attacks and corruptions left, with the examples that fooled the model most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfapp.errors import OutputError
from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.page_frame import (
    Markup,
    box,
    element,
    figure,
    figures,
    name,
    page,
    paragraphs,
    records,
    table,
)
from tfapp.evaluation.report import write_whole
from tfapp.evaluation.robustness.corrupted import CorruptionAccuracy
from tfapp.evaluation.robustness.curve import RobustnessCurve
from tfapp.evaluation.robustness.marking import marked_html
from tfapp.evaluation.robustness.pictures import draw_curve, example_pictures
from tfapp.evaluation.robustness.result import Example, Robustness
from tfapp.evaluation.robustness.settings import epsilon_text
from tfapp.evaluation.robustness.wording import plain_settings, settings_text

REPORT = "report.html"
_SENT = (
    "Each artifact answered the adversarial examples that were made on the Keras model, in its own process. "
    "Each TFLite and ONNX file was then attacked itself, by asking it for answers. A row that the model "
    "loses counts as lost for all."
)
_IN_LEVELS = " Pixels were rounded to whole grey levels within the budget first."
_STYLE = """
.example { border-top: 1px solid var(--line); padding: 1rem 0; }
.example p { margin: 0 0 .5rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
.pictures figure { margin: 0; }
.pictures img { height: 160px; max-width: 100%; image-rendering: pixelated; border: 1px solid var(--line); }
figcaption { font-size: .85rem; color: var(--soft); }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }
.texts div { white-space: pre-wrap; overflow-wrap: anywhere; }
.texts small { display: block; color: var(--soft); white-space: normal; }
del { background: var(--went); text-decoration: line-through; }
ins { background: var(--came); text-decoration: none; font-weight: 600; }
"""


def save_page(directory: str | Path, title: str, results: Sequence[Robustness], **parts: Any) -> Path:
    """Writes the report into a folder, whole or not at all.

    Args:
        directory: The folder; it is made if it does not exist.
        title: As for `robustness_page`.
        results: As for `robustness_page`.
        **parts: As for `robustness_page`.

    Returns:
        The file, ``report.html``.

    Raises:
        OutputError: It cannot be written.
    """
    folder = Path(directory)
    written = robustness_page(title, results, **parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / REPORT, lambda path: path.write_text(written, encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written there ({error})") from error
    return folder / REPORT


def robustness_page(
    title: str,
    results: Sequence[Robustness],
    *,
    curve: RobustnessCurve | None = None,
    artifacts: Sequence[Mapping[str, Any]] = (),
    corruptions: CorruptionAccuracy | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Writes the report.

    Every text that comes from data, names of classes included, is escaped; the page loads nothing and runs
    nothing, and says so to the browser.

    Args:
        title: What was attacked.
        results: One result for each attack.
        curve: Robust accuracy over epsilon.
        artifacts: A row for each artifact, all with the same columns.
        corruptions: Accuracy under common corruptions.
        notes: Sentences about where model and rows come from.

    Returns:
        HTML.
    """
    parts: list[str] = [element("h1", title), *paragraphs(notes)]
    for result in results:
        parts += _result(result)
    if curve is not None:
        parts += _curve(curve)
    if artifacts:
        sent = _SENT + (_IN_LEVELS if results[0].domain == "pixels" else "")
        last = len(artifacts[0]) - 1
        parts += [element("h2", "What ships"), *paragraphs([sent]), records(artifacts, words=last)]
    if corruptions is not None:
        parts += _corruptions(corruptions)
    for result in results:
        parts += _examples(result)
    return page(title, parts, style=_STYLE)


def robustness_summary(found: Mapping[str, Any]) -> list[Markup]:
    """Words what an attack left of a model: its accuracies, settings, attacks and alarms.

    Args:
        found: What `Robustness.to_dict` returns, or the ``robustness`` of a manifest's metrics.

    Returns:
        Parts of a page.
    """
    rows = [
        [
            each["name"],
            f"{each['attacked']:,}",
            f"{each['fooled']:,}",
            f"{each['robust_accuracy']:.4f}",
            f"{each['queries']:,}",
            f"{each['seconds']:.1f}",
            plain_settings(each["settings"]),
        ]
        for each in found["per_attack"]
    ]
    header = ["attack", "rows given", "fooled", "right after it", "queries", "seconds", "settings"]
    clean = _figure("Clean accuracy", found["clean_accuracy"], found["clean_interval95"])
    robust = _figure("Robust accuracy", found["robust_accuracy"], found["interval95"])
    return [
        *paragraphs([settings_text(found)]),
        figures([clean, robust]),
        *_alarms([Alarm(**alarm) for alarm in found["alarms"]], found["checked"]),
        table(header, rows, words=len(header) - 1),
    ]


def _result(result: Robustness) -> list[Markup]:
    return [element("h2", f"Attack {result.attack}"), *robustness_summary(result.to_dict())]


def _figure(label: str, value: float, interval: Sequence[float]) -> Markup:
    ends = " to ".join(f"{100 * end:.1f}" for end in interval)
    return figure(label, f"{value:.2%}", f"95 % interval {ends} %")


def _alarms(alarms: Sequence[Alarm], checked: Sequence[str] = ()) -> list[Markup]:
    shown = [
        box(
            element("b", alarm.name),
            f" undermines the figure of {alarm.undermines}: {alarm.message}",
            good=False,
        )
        for alarm in alarms
    ]
    if checked and not alarms:
        shown.append(box(f"No alarm went off. Looked for: {', '.join(checked)}.", good=True))
    return shown


def _curve(curve: RobustnessCurve) -> list[Markup]:
    rows = [
        [
            epsilon_text(point.epsilon, point.norm),
            f"{point.robust_accuracy:.4f}",
            f"{point.interval95[0]:.4f} to {point.interval95[1]:.4f}",
        ]
        for point in curve.points
    ]
    return [
        element("h2", "Over epsilon"),
        *paragraphs([curve.settings_text]),
        *_alarms(curve.alarms),
        element("img", class_="curve", alt="Robust accuracy over epsilon", src=draw_curve(curve)),
        table(["epsilon", "robust accuracy", "95 % interval"], rows),
    ]


def _corruptions(found: CorruptionAccuracy) -> list[Markup]:
    header = ["corruption", *(f"severity {severity}" for severity in found.severities)]
    low, high = found.clean_interval95
    words = (
        f"Mean accuracy {found.mean:.4f}, {found.clean_accuracy:.4f} [{low:.4f}, {high:.4f}] without "
        f"corruption, {found.examples:,} examples of {found.split}, seed {found.seed}; in brackets 95 % "
        "intervals"
    )
    return [element("h2", "Common corruptions"), *paragraphs([words]), table(header, found.cells())]


def _examples(result: Robustness) -> list[Markup]:
    if not result.worst:
        return []
    heading = element("h2", f"Fooled with the greatest confidence: {result.attack}")
    return [heading, *(_example(example) for example in result.worst)]


def _example(example: Example) -> Markup:
    words = element(
        "p",
        f"Row {example.row}: ",
        element("b", name(example.label)),
        f" ({example.before:.1%} before) is taken for ",
        element("b", name(example.predicted)),
        f" ({example.after:.1%} after)",
    )
    if isinstance(example.original, str):
        before, after = marked_html(example.original, str(example.adversarial))
        shown = element(
            "div",
            element("div", element("small", "original"), before),
            element("div", element("small", "adversarial"), after),
            class_="texts",
        )
    else:
        *pictures, factor = example_pictures(example.original, example.adversarial)
        captions = ("original", "adversarial", f"difference, {factor:.3g} times, around grey")
        shown = element(
            "div",
            *(
                element("figure", element("img", alt=caption, src=picture), element("figcaption", caption))
                for caption, picture in zip(captions, pictures, strict=True)
            ),
            class_="pictures",
        )
    return element("div", words, shown, class_="example")
