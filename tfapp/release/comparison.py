"""Comparing two releases: whose answers changed, whether the accuracy moved, and what they were made from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.errors import ConfigError, ReleaseError, nearest
from tfapp.evaluation.paired_rows import paired_accuracy
from tfapp.release.answers import FloatArray
from tfapp.release.artifacts import VARIANTS
from tfapp.release.asking import RAW_VARIANTS, ask_artifact
from tfapp.release.comparison_report import ChangedExample, ReleaseComparison, differing
from tfapp.release.golden import Golden
from tfapp.release.integrity import check_release
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import check_sha256, manifest_checksum
from tfapp.release.probe import RawFeatures
from tfapp.release.rows_at_hand import are_rows, read_rows, run_rows
from tfapp.release.verifying import NOT_PROVEN
from tfapp.release.versions import version_folder

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class _Opened:
    directory: Path
    manifest: dict[str, Any]
    checksum: str
    proven: bool
    golden: Golden

    @property
    def title(self) -> str:
        return f"{self.manifest['name']} {self.manifest['version'] or self.directory.name}"


@dataclass(frozen=True)
class _Rows:
    features: Sequence[bytes]
    names: Sequence[str]
    labels: Sequence[str] | None
    source: str
    notes: tuple[str, ...] = ()


def compare_releases(
    before: str | Path,
    after: str | Path,
    *,
    data: str | Path | None = None,
    variant: str | None = None,
    feature_column: str | None = None,
    label_column: str | None = None,
    num_bootstrap: int = 1000,
    before_manifest_sha256: str | None = None,
    after_manifest_sha256: str | None = None,
) -> ReleaseComparison:
    """Asks two releases the same and compares their answers, and what they were made from.

    Args:
        before: A version folder, or ``saved_models/<name>`` for its newest version.
        after: The other.
        data: A source of labelled rows. When None, the test rows that the run of a release left beside
            ``saved_models``; where there are none, the golden inputs of both, which have no labels.
        variant: Which artifact is asked; the first that both have when None, the SavedModel before others.
        feature_column: The column of texts or paths; that of the second release's workflow when None.
        label_column: The column of labels; that of the second release's workflow when None.
        num_bootstrap: Resamples behind the intervals, 1 or more.
        before_manifest_sha256: The sha256 of the first release's ``manifest.json``, printed when it was
            released; any if None, and the answer then notes that the origin is not proven.
        after_manifest_sha256: That of the second.

    Returns:
        The comparison.

    Raises:
        ReleaseError: When one is no release, another than is meant, or damaged, they classify different
            things, have no variant in common, or an artifact cannot be run.
        ConfigError: When there is no such variant, ``num_bootstrap`` is less than 1, or what is given is no
            sha256.
        DataError: When the rows cannot be read or are of other classes.
        OutputError: When the disk for temporary files is full.
    """
    if num_bootstrap < 1:
        raise ConfigError(f"num_bootstrap = {num_bootstrap}: it must be at least 1 (1000 is usual)")
    pair = _open(before, before_manifest_sha256), _open(after, after_manifest_sha256)
    if pair[0].golden.feature != pair[1].golden.feature:
        raise ReleaseError(
            f"{pair[0].title} classifies {pair[0].golden.feature} and {pair[1].title} "
            f"{pair[1].golden.feature}: they cannot be asked the same."
        )
    chosen = _choose(pair, variant)
    rows = _find_rows(pair, data, {"feature_column": feature_column, "label_column": label_column})
    answers = []
    for opened in pair:
        _logger.info("diff: %s of %s answers %d rows", chosen, opened.title, len(rows.features))
        answers.append(ask_artifact(opened.directory, opened.golden, chosen, rows.features))
    told = [_labels(opened, found) for opened, found in zip(pair, answers, strict=True)]
    names = list(dict.fromkeys([*pair[0].golden.classes, *pair[1].golden.classes]))
    place = {name: number for number, name in enumerate(names)}
    numbers = [np.array([place[label] for label in labels], np.int64) for labels in told]
    accuracy = None
    if rows.labels is not None:
        truth = np.array([place[label] for label in rows.labels], np.int64)
        accuracy = paired_accuracy(numbers[0], numbers[1], truth, num_bootstrap=num_bootstrap)
    manifests = [opened.manifest for opened in pair]
    return ReleaseComparison(
        before=_about(pair[0]),
        after=_about(pair[1]),
        variant=chosen,
        source=rows.source,
        rows=len(rows.features),
        accuracy=accuracy,
        changed=tuple(_changed(rows, told, answers)),
        settings={key: differing(_part(manifests[0], key), _part(manifests[1], key)) for key in _PARTS},
        artifacts=_artifacts(manifests[0], manifests[1]),
        notes=(*rows.notes, *_notes(pair)),
    )


_PARTS = ("config", "data", "libraries")


def _part(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part: Mapping[str, Any] = manifest[key]
    if key == "libraries":
        return {"tfapp": manifest["tfapp_version"], **part}
    return {"seed": manifest["seed"], **part} if key == "config" else part


def _open(path: str | Path, manifest_sha256: str | None) -> _Opened:
    directory = version_folder(path)
    proven = manifest_sha256 is not None
    checksum = manifest_checksum(directory) if manifest_sha256 is None else check_sha256(manifest_sha256)
    manifest = check_release(directory, manifest_sha256=checksum)
    return _Opened(directory, manifest, checksum, proven, Golden.load(directory / GOLDEN_FILE))


def _choose(pair: tuple[_Opened, _Opened], variant: str | None) -> str:
    first, second = ({row["variant"] for row in opened.manifest["artifacts"]} for opened in pair)
    both = [name for name in dict.fromkeys((*RAW_VARIANTS, *VARIANTS)) if name in first & second]
    if variant is not None and variant not in both:
        raise ConfigError(f"not both releases have the variant {variant!r}; {nearest(variant, both)}")
    if not both:
        raise ReleaseError(
            f"{pair[0].title} has {sorted(first)} and {pair[1].title} has {sorted(second)}: no artifact of "
            "the one can be compared with the like of the other; export one of them again."
        )
    return variant or both[0]


def _find_rows(pair: tuple[_Opened, _Opened], data: str | Path | None, columns: Mapping[str, Any]) -> _Rows:
    feature = pair[1].golden.feature
    if data is not None:
        classes = list(dict.fromkeys([*pair[1].golden.classes, *pair[0].golden.classes]))
        split = read_rows(str(data), classes, pair[1].manifest, feature=feature, **columns)
        return _labelled(pair, split, f"{len(split):,} rows of {data}")
    for opened in reversed(pair):
        folder = run_rows(opened.directory, opened.manifest)
        if folder is not None and are_rows(folder):
            split = read_rows(folder, opened.golden.classes, opened.manifest, feature=feature)
            return _labelled(pair, split, f"the {len(split):,} test rows of {folder.parents[1]}")
    asked = dict.fromkeys(given for opened in pair for given in opened.golden.probe().features)
    features = list(asked)
    names = [value.decode("utf-8") for value in features] if feature == "text" else []
    note = (
        "Golden inputs are drawn at random and lie near the borders between classes, so more of their labels "
        "change than of real ones; without true labels nothing is said of accuracy. Give rows with --data."
    )
    names = names or [f"golden image {number}" for number in range(len(features))]
    return _Rows(features, names, None, f"{len(features):,} golden inputs of both releases", (note,))


def _labelled(pair: tuple[_Opened, _Opened], split: Any, source: str) -> _Rows:
    features = RawFeatures(split.features)
    texts = pair[0].golden.feature == "text"
    names = list(split.features) if texts else [features.name(row) for row in range(len(features))]
    labels = [split.classes[number] for number in split.labels.tolist()]
    notes = []
    for opened in pair:
        if opened.manifest["data"].get("test", {}).get("sha256") != split.sha256:
            notes.append(
                f"{opened.title} was checked with other rows than these; if it was trained on some of them, "
                "its accuracy here is too high."
            )
    return _Rows(features, names, labels, f"{source}, sha256 {split.sha256[:16]}", tuple(notes))


def _labels(opened: _Opened, probabilities: FloatArray) -> list[str]:
    return [opened.golden.classes[number] for number in probabilities.argmax(axis=1).tolist()]


def _changed(
    rows: _Rows, told: Sequence[Sequence[str]], answers: Sequence[FloatArray]
) -> list[ChangedExample]:
    best = [found.max(axis=1) for found in answers]
    return [
        ChangedExample(
            row=row,
            feature=rows.names[row],
            label=None if rows.labels is None else rows.labels[row],
            before=first,
            after=second,
            before_probability=float(best[0][row]),
            after_probability=float(best[1][row]),
        )
        for row, (first, second) in enumerate(zip(*told, strict=True))
        if first != second
    ]


def _about(opened: _Opened) -> dict[str, Any]:
    return {
        "title": opened.title,
        "directory": str(opened.directory),
        "name": opened.manifest["name"],
        "version": opened.manifest["version"],
        "verdict": opened.manifest["release"]["verdict"],
        "manifest_sha256": opened.checksum,
        "origin_proven": opened.proven,
    }


def _artifacts(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    first, second = ({row["variant"]: row for row in manifest["artifacts"]} for manifest in (before, after))

    def pairs(variant: str) -> dict[str, Any]:
        both = first.get(variant), second.get(variant)
        measures = {
            key: [None if row is None else row[key] for row in both]
            for key in ("bytes", "accuracy", "robust_accuracy")
        }
        timed = [
            None if row is None or row["latency_ms"] is None else row["latency_ms"]["p50"] for row in both
        ]
        return {"variant": variant, **measures, "p50_ms": timed}

    return [pairs(variant) for variant in dict.fromkeys([*first, *second])]


def _notes(pair: tuple[_Opened, _Opened]) -> list[str]:
    notes = []
    if set(pair[0].golden.classes) != set(pair[1].golden.classes):
        gone = sorted(set(pair[0].golden.classes) - set(pair[1].golden.classes))
        new = sorted(set(pair[1].golden.classes) - set(pair[0].golden.classes))
        notes.append(
            f"The classes differ: gone {gone}, new {new}. A release is wrong on every row of a class that it "
            "does not know."
        )
    if pair[0].checksum == pair[1].checksum:
        notes.append("Both are the same release.")
    notes += [
        f"{opened.title} was refused."
        for opened in pair
        if opened.manifest["release"]["verdict"] == "refused"
    ]
    notes += [f"{opened.title}: {NOT_PROVEN}." for opened in pair if not opened.proven]
    return notes
