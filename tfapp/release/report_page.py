"""``report.html`` of a release: everything that was measured, on one page that a phone shows as well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfapp.evaluation.page_frame import (
    Markup,
    box,
    element,
    figure,
    figures,
    items,
    name,
    page,
    paragraphs,
    records,
    table,
)
from tfapp.evaluation.page_plots import PLOT_STYLE, bars, confusion_table, reliability_plot
from tfapp.evaluation.robustness.page import robustness_summary
from tfapp.evaluation.teacher import teacher_table, teacher_words
from tfapp.release.class_figures import ClassFigures
from tfapp.release.model_card import KINDS, LEFT_OUT, measured_words, robustness_table, terms
from tfapp.release.usage import usage

FILE_NAME = "report.html"
_CLASSES_SHOWN = 20
_COLUMNS = (
    "artifact",
    "MB",
    "agreement",
    "max difference",
    "accuracy",
    "drop",
    "robust",
    "p50 ms",
    "p95 ms",
    "verdict",
)
_INTERVAL = ("value", "low", "high")
_SCORES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "ece_calibrated": "Calibration error (ECE)",
}


def release_page(
    manifest: Mapping[str, Any],
    *,
    classes: ClassFigures,
    preset: str,
    rows: Sequence[Mapping[str, str]],
    sources: Sequence[str] = (),
    feature: str = "text",
) -> str:
    """Writes the page.

    Args:
        manifest: The manifest's content; ``files`` are all but the page itself.
        classes: What the trained model answers, by class.
        preset: Name of the backbone's preset; may be empty.
        rows: A row for each artifact, all with the same columns.
        sources: What the data was read from; packaged sets are known by name.
        feature: What is classified: ``"text"`` or ``"image_bytes"``.

    Returns:
        HTML.
    """
    what, limits = KINDS[feature]
    version = manifest["version"]
    title = f"{manifest['name']} {'(refused)' if version is None else version}"
    parts: list[str] = [
        element("h1", title),
        *paragraphs([f"{what}, exported and measured by tfapp {manifest['tfapp_version']}."]),
        _verdict(manifest["release"]),
        _highlights(manifest),
        *_artifacts(manifest, rows),
        *_scores(manifest["metrics"], classes),
        *_teacher(manifest["metrics"]),
        *_robustness(manifest["metrics"].get("robustness"), manifest["artifacts"]),
        *_use(manifest, feature),
        element("h2", "Model and licences"),
        items(line.strip().removeprefix("* ") for line in terms(preset, manifest["config"], sources)),
        element("h2", "Limits"),
        element("p", limits),
        *_made_from(manifest),
    ]
    return page(title, parts, style=PLOT_STYLE)


def _verdict(state: Mapping[str, Any]) -> Markup:
    if state["verdict"] == "released":
        return box(
            element("b", "Released."),
            " Every artifact was loaded in a fresh process and is within its budget.",
            good=True,
        )
    return box(element("b", "Refused."), items(state["reasons"]), good=False)


def _highlights(manifest: Mapping[str, Any]) -> Markup:
    shown = []
    for key, label in _SCORES.items():
        score = manifest["metrics"].get(key)
        if isinstance(score, Mapping) and all(isinstance(score.get(end), float) for end in _INTERVAL):
            value, low, high = (score[end] for end in _INTERVAL)
            form = ".4f" if key.startswith("ece") else ".2%"
            interval = f"95 % interval {format(low, form)} to {format(high, form)}"
            shown.append(figure(label, format(value, form), interval))
        elif isinstance(score, float):
            shown.append(figure(label, f"{score:.4f}"))
    total = sum(row["bytes"] for row in manifest["artifacts"])
    shown.append(figure("Artifacts", f"{len(manifest['artifacts'])}", f"{total / 1e6:,.1f} MB together"))
    return figures(shown)


def _artifacts(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> list[str]:
    artifacts = manifest["artifacts"]
    sizes = [(row["variant"], row["bytes"] / 1e6, f"{row['bytes'] / 1e6:,.1f} MB") for row in artifacts]
    timed = [row for row in artifacts if row["latency_ms"] is not None]
    times = [
        (row["variant"], row["latency_ms"]["p50"], f"{row['latency_ms']['p50']:,.2f} ms") for row in timed
    ]
    plots = [element("div", element("h3", "Size"), bars(sizes))]
    if times:
        plots.append(element("div", element("h3", "Median latency of a call, one thread"), bars(times)))
    attacked = any(row["robust_accuracy"] is not None for row in artifacts)
    columns = [column for column in _COLUMNS if column != "robust" or attacked]
    budget = {key: "none" if value is None else f"{value:g}" for key, value in _budget(manifest).items()}
    return [
        element("h2", "Artifacts"),
        *paragraphs(
            [
                f"{measured_words(artifacts)} Agreement and differences (of probabilities) are against the "
                "trained Keras model; latencies are of single calls on one thread of the exporting machine."
            ]
        ),
        records([{column: row[column] for column in columns} for row in rows]),
        *_left_out(manifest["left_out"]),
        element("div", *plots, class_="plots"),
        element("details", element("summary", "The budget"), table(["limit", "value"], budget.items())),
    ]


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons = [reason for row in rows for reason in row["reasons"]]
    return [*paragraphs([LEFT_OUT]), items(reasons)] if reasons else []


def _budget(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    budget: Mapping[str, Any] = manifest["release"]["budget"]
    return budget


def _scores(metrics: Mapping[str, Any], classes: ClassFigures) -> list[str]:
    lines = []
    for key, value in metrics.items():
        words = key.replace("_", " ")
        if isinstance(value, Mapping) and all(isinstance(value.get(end), float) for end in _INTERVAL):
            lines.append([words, f"{value['value']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}"])
        elif isinstance(value, float):
            lines.append([words, f"{value:.4f}", ""])
    parts: list[str] = [element("h2", "Scores of the trained model")]
    if isinstance(metrics.get("split"), str):
        parts += paragraphs([f"On {classes.confusion.sum():,} rows of the split {metrics['split']!r}."])
    parts.append(table(["score", "value", "95 % interval"], lines))
    by_class = classes.class_rows()
    few = by_class[:_CLASSES_SHOWN]
    left = f", the {len(few)} lowest F1 of {len(by_class):,}" if len(few) < len(by_class) else ""
    parts += [
        element("h3", f"By class{left}"),
        table(list(few[0]), [[name(row["class"]), *list(row.values())[1:]] for row in few]),
    ]
    if len(by_class) <= _CLASSES_SHOWN:
        parts += [
            element("h3", "Confusion matrix"),
            confusion_table(classes.classes, classes.confusion.tolist()),
        ]
    elif pairs := classes.confused(_CLASSES_SHOWN):
        shown = [[name(row["true"]), name(row["predicted"]), row["rows"]] for row in pairs]
        parts += [element("h3", "Most confused"), table(list(pairs[0]), shown)]
    plots = [
        reliability_plot(bins, f"Confidence and accuracy, {words}")
        for words, bins in classes.reliability.items()
    ]
    if plots:
        told = "Bars: share of right answers; red: mean confidence; dashed: perfectly calibrated."
        parts += [element("div", *plots, class_="plots"), *paragraphs([told])]
    return parts


def _teacher(metrics: Mapping[str, Any]) -> list[str]:
    rows = teacher_table(metrics)
    if not rows:
        return []
    parts: list[str] = [element("h2", "Beside its teacher"), *paragraphs([teacher_words(metrics)])]
    return [*parts, records(rows)]


def _robustness(found: Mapping[str, Any] | None, artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    if found is None:
        return []
    rows = robustness_table(artifacts)
    parts: list[str] = [element("h2", "Robustness"), *robustness_summary(found)]
    return [*parts, records(rows, words=len(rows[0]) - 1)] if rows else parts


def _use(manifest: Mapping[str, Any], feature: str) -> list[str]:
    uses = usage(manifest, feature)
    refused = "A refused release is there to be looked at: nothing loads or serves it."
    parts: list[str] = [element("h2", "Verify, load, serve" if uses else "Files")]
    parts += [] if uses else paragraphs([refused])
    for use in uses:
        parts += [element("h3", use.title), *paragraphs([use.words]), element("pre", use.code)]
    files = [[path, element("code", checksum)] for path, checksum in manifest["files"].items()]
    listed = f"The sha256 of {len(files)} files"
    return [*parts, element("details", element("summary", listed), table(["file", "sha256"], files))]


def _made_from(manifest: Mapping[str, Any]) -> list[str]:
    splits = [
        [split, f"{about['rows']:,}", element("code", about["sha256"])]
        for split, about in manifest["data"].items()
    ]
    libraries = table(["library", "version"], manifest["libraries"].items())
    config = json.dumps(manifest["config"], ensure_ascii=False, indent=2)
    seed = "No seed was given." if manifest["seed"] is None else f"Seed {manifest['seed']}."
    return [
        element("h2", "Data"),
        *paragraphs(["The fingerprint of a split changes with any row of it."]),
        table(["split", "rows", "sha256"], splits),
        element("h2", "Settings"),
        *paragraphs([seed]),
        element("details", element("summary", "The configuration"), element("pre", config)),
        element("details", element("summary", "The libraries that ran the artifacts"), libraries),
    ]
