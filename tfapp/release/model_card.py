"""The model card of a release: what it is, how it was measured, and under which terms it may be used."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfapp.data.datasets import DATASETS
from tfapp.evaluation.robustness.wording import settings_text
from tfapp.evaluation.teacher import teacher_table, teacher_words
from tfapp.models.presets import known_preset

KINDS = {
    "text": (
        "A text classifier",
        "The scores hold for texts like those of the data above; other topics, languages and styles were "
        "not measured. Every text gets one of the classes, also one that belongs to none. On a device, "
        "MediaPipe Tasks tokenizes by itself: it takes off no accents, lower-cases ASCII only, and reads no "
        "more than the beginning of a long text. Prepare texts as tfapp's samples for phones do; "
        "`golden.json` shows whether the answers are right.",
    ),
    "image_bytes": (
        "An image classifier",
        "The scores hold for pictures like those of the data above; other cameras, light and scenes were "
        "not measured. Every picture gets one of the classes, also one that belongs to none. On a device, "
        "pixels must be decoded and resized as `golden.json` says; it has images with the checksums of "
        "their pixels.",
    ),
}
"""For each name of a raw feature, what its classifier is called, and the limits of what was measured."""

LEFT_OUT = "Left out of the release, as beyond the budget:"

_MARKS = re.compile(r"[\\|\[\]]")


def model_card(
    manifest: Mapping[str, Any],
    *,
    preset: str,
    rows: Sequence[Mapping[str, str]],
    sources: Sequence[str] = (),
    feature: str = "text",
    copied: int = 0,
) -> str:
    """Writes the model card.

    Args:
        manifest: The manifest's content.
        preset: Name of the backbone's preset; may be empty.
        rows: A row for each artifact, all with the same columns.
        sources: What the data was read from; packaged sets are known by name.
        feature: What is classified: ``"text"`` or ``"image_bytes"``.
        copied: How many rows of the data are copied into the release, as warm-up requests.

    Returns:
        Markdown.
    """
    what, limits = KINDS[feature]
    parts = [
        f"# {manifest['name']}",
        f"{what}, exported and measured by tfapp "
        f"{manifest['tfapp_version']}. Verdict: **{manifest['release']['verdict']}**.",
        "\n".join(f"* {_escaped(reason)}" for reason in manifest["release"]["reasons"]),
        "## Model",
        html.escape("\n".join(_model_lines(preset, manifest["config"], sources)), quote=False),
        "## Scores of the trained model",
        _scores(manifest["metrics"]),
        *_teacher(manifest["metrics"]),
        *_robustness(manifest["metrics"].get("robustness"), manifest["artifacts"]),
        "## Artifacts",
        f"{measured_words(manifest['artifacts'])} "
        "Agreement and differences (of probabilities) are against the trained Keras model; latencies are of "
        "single calls on one thread of the exporting machine. The scale is that of the logarithms of "
        "probabilities, 1 where the temperature is the model's, on the rows that tell it; it is not "
        "measurable where no row does, as with integers of a model that is sure of every row.",
        _markdown(rows),
        *_left_out(manifest["left_out"]),
        "## Data",
        _markdown(
            [
                {"split": name, "rows": f"{split['rows']:,}", "sha256": split["sha256"][:16]}
                for name, split in manifest["data"].items()
            ]
        ),
        f"**This release holds copies of {copied} rows of the data**, as warm-up requests in "
        "`assets.extra/`. Whoever has the release can read them."
        if copied
        else "",
        "## Limits",
        limits,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _teacher(metrics: Mapping[str, Any]) -> list[str]:
    """Shows what the model lost against the one that it was distilled from."""
    rows = teacher_table(metrics)
    return ["## Beside its teacher", teacher_words(metrics), _markdown(rows)] if rows else []


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words which variants are not in the release, and why."""
    reasons = [f"* {_escaped(reason)}" for row in rows for reason in row["reasons"]]
    return [LEFT_OUT, "\n".join(reasons)] if reasons else []


def measured_words(artifacts: Sequence[Mapping[str, Any]]) -> str:
    """Words which artifacts were measured, and on how many rows.

    Args:
        artifacts: Entries of a manifest.
    """
    rows = artifacts[0]["examples"]
    failed = [row["variant"] for row in artifacts if row["agreement"] is None]
    if len(failed) == len(artifacts):
        return "None could be measured."
    who = f"Each but {', '.join(failed)}, which could not be measured," if failed else "Each"
    return (
        f"{who} was loaded in a fresh process and answered all {rows} rows of the split it was checked with."
    )


def _robustness(figures: Mapping[str, Any] | None, artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words what an attack left, of the model and of its artifacts, with all that it depends on."""
    if figures is None:
        return []
    shares = [
        f"* {words}: {figures[name]:.4f} (95 % interval {low:.4f} to {high:.4f})"
        for words, name, (low, high) in (
            ("clean accuracy on the same rows", "clean_accuracy", figures["clean_interval95"]),
            ("robust accuracy", "robust_accuracy", figures["interval95"]),
        )
    ]
    settings = f"Measured by: {settings_text(figures)}."
    alarms = [
        f"* **{alarm['name']}** undermines the figure of {alarm['undermines']}: {_escaped(alarm['message'])}"
        for alarm in figures["alarms"]
    ]
    rows = robustness_table(artifacts)
    sent = (
        "Every artifact answered the adversarial examples that were made on the model; pixels were rounded "
        "to whole grey levels within the budget first, also for the model's own figure that artifacts are "
        "compared with. A row that the model loses, to these examples or to the attack on its own answers, "
        "counts as lost for its artifacts too; what attacks on answers would fool of all rows is reckoned "
        "from those that they were tried on."
    )
    parts = ["## Robustness", "\n".join(shares), settings, "\n".join(alarms)]
    return [*parts, sent, _markdown(rows)] if rows else parts


def robustness_table(artifacts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Lays out the robustness of artifacts for people to read.

    Args:
        artifacts: Entries of a manifest.

    Returns:
        A row for each artifact that was attacked, all with the same columns.
    """
    return [
        {
            "artifact": row["variant"],
            "robust accuracy": f"{row['robust_accuracy']:.4f}",
            "95 % interval": "{:.4f} to {:.4f}".format(*found["interval95"]),
            "against the model": f"{0.0 - found['robust_accuracy_drop']:+.4f}",
            "after the model's examples": f"{found['transfer_accuracy']:.4f}",
            "attack on the file itself": _black_box(found["black_box"]),
        }
        for row in artifacts
        if (found := row.get("robustness")) is not None
    ]


def _black_box(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "none"
    return (
        f"{found['attack']}, {found['num_queries']} queries: fools {found['fooled']} of "
        f"{found['examples']} rows that were left"
    )


def preset_name(preset: str) -> str:
    """Names a preset for people elsewhere.

    Args:
        preset: A preset's name, a handle, or a path on this machine.

    Returns:
        The name or handle; of a path only the last part.
    """
    return preset if "://" in preset else Path(preset).name


def terms(preset: str, config: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    """Says under which terms the parts of a model may be used.

    Args:
        preset: Name of the backbone's preset; may be empty.
        config: The settings that the model was made with.
        sources: What the data was read from; packaged sets are known by name.

    Returns:
        A sentence on the backbone, and one on each packaged data set.
    """
    known = known_preset(preset)
    if known is not None:
        lines = [f"Backbone: {preset_name(preset)}, {known.origin}; licence {known.licence}."]
    elif preset:
        lines = [f"Backbone: {preset_name(preset)}; see its publisher for the licence."]
    else:
        lines = ["Backbone: built by hand."]
    section = config.get("data")
    named = section.get("dataset") if isinstance(section, Mapping) else None
    used = (name for name in DATASETS if name == named or name in sources)
    return lines + [f"Data: {name}; {DATASETS[name].licence}" for name in used]


def _model_lines(preset: str, config: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    backbone, *data = (f"* {line}" for line in terms(preset, config, sources))
    known = known_preset(preset)
    described = [f"  {known.description}."] if known is not None and known.description else []
    return [backbone, *described, *data]


def _scores(metrics: Mapping[str, Any]) -> str:
    lines = []
    for name, value in metrics.items():
        if isinstance(value, Mapping) and isinstance(value.get("value"), float):
            interval = f"{value['low']:.4f} to {value['high']:.4f}"
            lines.append(f"* {_escaped(name)}: {value['value']:.4f} (95 % interval {interval})")
        elif isinstance(value, float):
            lines.append(f"* {_escaped(name)}: {value:.4f}")
    return "\n".join(lines) or "None were given."


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *([_escaped(row[name]) for name in header] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Takes from a text of the data what Markdown would read as HTML, a link, or the end of a cell."""
    return " ".join(_MARKS.sub(r"\\\g<0>", html.escape(text, quote=False)).split())
