"""The robustness report: one HTML page that needs no other file, and believes nothing of the data."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfapp import __version__
from tfapp.errors import OutputError
from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.report import write_whole
from tfapp.evaluation.robustness.corrupted import CorruptionAccuracy
from tfapp.evaluation.robustness.curve import RobustnessCurve
from tfapp.evaluation.robustness.marking import marked_html
from tfapp.evaluation.robustness.pictures import draw_curve, example_pictures
from tfapp.evaluation.robustness.result import Example, Robustness
from tfapp.evaluation.robustness.settings import epsilon_text
from tfapp.evaluation.robustness.wording import plain_settings

REPORT = "report.html"
_SENT = (
    "Each artifact answered the adversarial examples that were made on the Keras model, in its own process. "
    "Each TFLite and ONNX file was then attacked itself, by asking it for answers. A row that the model "
    "loses counts as lost for all."
)
_IN_LEVELS = " Pixels were rounded to whole grey levels within the budget first."
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; max-width: 62rem;
       margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.settings { color: #4c5a6b; margin: .2rem 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
.figure { border: 1px solid #d8dee6; border-radius: 8px; padding: .7rem 1.1rem; min-width: 13rem; }
.figure b { display: block; font-size: 1.8rem; line-height: 1.25; }
.alarm { border-left: 5px solid #b5302a; background: #fdf1f0; padding: .6rem .9rem; margin: .6rem 0;
         overflow-wrap: anywhere; }
.calm { border-left: 5px solid #3d8a57; background: #f0f8f3; padding: .6rem .9rem; margin: .6rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; white-space: nowrap; padding: .3rem 1.1rem .3rem 0;
         border-bottom: 1px solid #e3e8ee; }
th { color: #4c5a6b; font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, th.words, td.words { text-align: left; }
td.words { white-space: normal; min-width: 16rem; font-size: .9rem; color: #4c5a6b; }
.example { border-top: 1px solid #e3e8ee; padding: 1rem 0; }
.example p { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
.pictures figure { margin: 0; }
.pictures img { height: 160px; image-rendering: pixelated; border: 1px solid #d8dee6; }
figcaption { font-size: .85rem; color: #4c5a6b; }
.texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.texts div { white-space: pre-wrap; overflow-wrap: anywhere; }
.texts small { display: block; color: #4c5a6b; white-space: normal; }
del { background: #fbdcd9; text-decoration: line-through; }
ins { background: #d7f0dd; text-decoration: none; font-weight: 600; }
img.curve { max-width: 100%; height: auto; }
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
    page = robustness_page(title, results, **parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / REPORT, lambda path: path.write_text(page, encoding="utf-8"))
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
    parts = [f"<h1>{html.escape(title)}</h1>", *_paragraphs(notes)]
    for result in results:
        parts += _result(result)
    if curve is not None:
        parts += _curve(curve)
    if artifacts:
        parts += [
            "<h2>What ships</h2>",
            *_paragraphs([_SENT + (_IN_LEVELS if results[0].domain == "pixels" else "")]),
            _table(
                list(artifacts[0]),
                [[str(row[name]) for name in artifacts[0]] for row in artifacts],
                words=len(artifacts[0]) - 1,
            ),
        ]
    if corruptions is not None:
        parts += _corruptions(corruptions)
    for result in results:
        parts += _examples(result)
    parts.append(f'<p class="settings">Made by tfapp {html.escape(__version__)}.</p>')
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def _result(result: Robustness) -> list[str]:
    clean = _figure("Clean accuracy", result.clean_accuracy, result.clean_interval95)
    robust = _figure("Robust accuracy", result.robust_accuracy, result.interval95)
    rows = [
        [
            figures.name,
            f"{figures.attacked:,}",
            f"{figures.fooled:,}",
            f"{figures.robust_accuracy:.4f}",
            f"{figures.queries:,}",
            f"{figures.seconds:.1f}",
            plain_settings(figures.settings),
        ]
        for figures in result.per_attack
    ]
    header = ["attack", "rows given", "fooled", "right after it", "queries", "seconds", "settings"]
    return [
        f"<h2>Attack {html.escape(result.attack)}</h2>",
        f'<p class="settings">{html.escape(result.settings_text)}</p>',
        f'<div class="figures">{clean}{robust}</div>',
        *_alarms(result.alarms, result.checked),
        _table(header, rows, words=len(header) - 1),
    ]


def _figure(name: str, value: float, interval: tuple[float, float]) -> str:
    ends = " to ".join(f"{100 * end:.1f}" for end in interval)
    return f'<div class="figure">{name}<b>{value:.2%}</b>95 % interval {ends} %</div>'


def _alarms(alarms: Sequence[Alarm], checked: Sequence[str] = ()) -> list[str]:
    shown = [
        f'<div class="alarm"><b>{html.escape(alarm.name)}</b> undermines the figure of '
        f"{html.escape(alarm.undermines)}: {html.escape(alarm.message)}</div>"
        for alarm in alarms
    ]
    if checked and not alarms:
        names = html.escape(", ".join(checked))
        shown.append(f'<div class="calm">No alarm went off. Looked for: {names}.</div>')
    return shown


def _curve(curve: RobustnessCurve) -> list[str]:
    rows = [
        [
            epsilon_text(point.epsilon, point.norm),
            f"{point.robust_accuracy:.4f}",
            f"{point.interval95[0]:.4f} to {point.interval95[1]:.4f}",
        ]
        for point in curve.points
    ]
    return [
        "<h2>Over epsilon</h2>",
        f'<p class="settings">{html.escape(curve.settings_text)}</p>',
        *_alarms(curve.alarms),
        f'<img class="curve" alt="Robust accuracy over epsilon" src="{draw_curve(curve)}">',
        _table(["epsilon", "robust accuracy", "95 % interval"], rows),
    ]


def _corruptions(found: CorruptionAccuracy) -> list[str]:
    header = ["corruption", *(f"severity {severity}" for severity in found.severities)]
    rows = [[name, *(f"{value:.4f}" for value in values)] for name, values in found.accuracy.items()]
    words = (
        f"Mean accuracy {found.mean:.4f}, {found.clean_accuracy:.4f} without corruption, "
        f"{found.examples:,} examples of {found.split}, seed {found.seed}"
    )
    return ["<h2>Common corruptions</h2>", *_paragraphs([words]), _table(header, rows)]


def _examples(result: Robustness) -> list[str]:
    if not result.worst:
        return []
    heading = f"<h2>Fooled with the greatest confidence: {html.escape(result.attack)}</h2>"
    return [heading, *(_example(example) for example in result.worst)]


def _example(example: Example) -> str:
    words = (
        f"Row {example.row}: <b>{html.escape(example.label)}</b> ({example.before:.1%} before) is taken for "
        f"<b>{html.escape(example.predicted)}</b> ({example.after:.1%} after)"
    )
    if isinstance(example.original, str):
        before, after = marked_html(example.original, str(example.adversarial))
        shown = (
            f'<div class="texts"><div><small>original</small>{before}</div>'
            f"<div><small>adversarial</small>{after}</div></div>"
        )
    else:
        *pictures, factor = example_pictures(example.original, example.adversarial)
        captions = ("original", "adversarial", f"difference, {factor:.3g} times, around grey")
        figures = "".join(
            f'<figure><img alt="{caption}" src="{picture}"><figcaption>{caption}</figcaption></figure>'
            for caption, picture in zip(captions, pictures, strict=True)
        )
        shown = f'<div class="pictures">{figures}</div>'
    return f'<div class="example"><p>{words}</p>{shown}</div>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int | None = None) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        marks = [' class="words"' if place == words else "" for place in range(len(cells))]
        filled = zip(cells, marks, strict=True)
        return "".join(f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in filled)

    head = line(header, "th")
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    return [f'<p class="settings">{html.escape(sentence)}</p>' for sentence in sentences]
