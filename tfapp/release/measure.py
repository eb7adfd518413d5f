"""Measuring: write the artifacts of a staged release, run each elsewhere, compare with the model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfapp.data.encoded import MAX_WINDOWS, window_stride
from tfapp.data.text import TextSplit
from tfapp.exporters import TFLITE_VARIANTS, in_float32
from tfapp.progress import track
from tfapp.release.answers import Answers, FloatArray, Reference, probabilities_from
from tfapp.release.artifacts import artifact_bytes, artifact_path, write_artifact
from tfapp.release.gate import Budget, Judgement, check_label_file, judge
from tfapp.release.golden import Golden, make_golden_texts
from tfapp.release.probe import Probe
from tfapp.release.processes import ArtifactRunner
from tfapp.release.publish import Staging
from tfapp.release.vocabulary import check_vocabulary
from tfapp.training.inference import predict_logits

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class Measured:
    """What was found out about the artifacts of a staged release.

    Attributes:
        rows: The manifest's entry of each artifact.
        reasons: Why the release is refused; empty when it is not.
        libraries: Versions of the libraries that ran the artifacts.
        reference: What the trained model answers on the same rows.
    """

    rows: list[dict[str, Any]]
    reasons: list[str]
    libraries: dict[str, str]
    reference: Reference


def measure(
    model: Any, split: TextSplit, variants: Sequence[str], budget: Budget, stage: Staging
) -> Measured:
    """Writes artifacts and golden vectors into a staged release and measures them.

    Args:
        model: The trained classifier.
        split: The rows to measure on.
        variants: The artifacts to write.
        budget: How far they may be from the model.
        stage: Where they are written.

    Returns:
        The measures and the reasons against a release.
    """
    model = in_float32(model)
    preprocessor = model.preprocessor
    golden_texts = make_golden_texts(preprocessor.vocabulary, max_length=preprocessor.max_length)
    texts = [*split.texts, *golden_texts]
    features = [text.encode("utf-8") for text in texts]
    probe = Probe.from_features(preprocessor, features, inputs=model.input)
    answers, probabilities = _run(model, texts, probe, variants, stage)

    rows, total = len(split), len(texts)
    reference = Reference(probabilities[:rows], split.labels, tuple(model.classes), float(model.temperature))
    golden = _golden(model, golden_texts, probe, probabilities, rows)
    judgements: dict[str, Judgement] = {}
    for name in variants:
        judged = judge(name, answers[name].rows(0, rows), reference, budget)
        beside = answers[name].rows(rows, total)
        if answers[name].error is None:
            judged = replace(judged, reasons=(*judged.reasons, *golden.judge(name, beside, budget)))
        judgements[name] = judged
        golden.record(name, beside)
    golden.save(stage.release / "edge" / "golden.json")

    reasons = [reason for judgement in judgements.values() for reason in judgement.reasons]
    if set(variants) & set(TFLITE_VARIANTS):
        reasons += _edge_reasons(model, texts, probe, stage.release / "edge")
    libraries = {key: value for name in variants for key, value in answers[name].libraries.items()}
    entries = [_entry(stage.release, name, judgements[name], answers[name]) for name in variants]
    return Measured(entries, reasons, dict(sorted(libraries.items())), reference)


def _run(
    model: Any, texts: Sequence[str], probe: Probe, variants: Sequence[str], stage: Staging
) -> tuple[dict[str, Answers], FloatArray]:
    """Writes the artifacts while finished ones already answer, and asks the model itself."""
    answers: dict[str, Answers] = {}
    with ArtifactRunner(
        stage.scratch,
        probe,
        feature=model.preprocessor.feature_name,
        tensor_endpoint=model.preprocessor.tensor_endpoint,
        temperature=float(model.temperature),
    ) as runner:
        for variant in track(variants, len(variants), "write artifacts"):
            error = write_artifact(model, variant, stage.release, stage.scratch)
            if error is None:
                runner.start(variant, stage.release / artifact_path(variant))
            else:
                answers[variant] = Answers(error=error)
        _logger.info("verify: %d rows in a fresh process for each artifact", len(probe))
        logits = predict_logits(model, texts, batch_size=32)
        answers.update(runner.answers())
    return answers, probabilities_from(logits, model.temperature)


def _golden(model: Any, texts: Sequence[str], probe: Probe, probabilities: FloatArray, first: int) -> Golden:
    preprocessor = model.preprocessor
    return Golden(
        feature=preprocessor.feature_name,
        tensor_endpoint=preprocessor.tensor_endpoint,
        classes=tuple(model.classes),
        temperature=float(model.temperature),
        preprocessor={
            "lowercase": preprocessor.lowercase,
            "max_length": preprocessor.max_length,
            "long_texts": preprocessor.long_texts,
            "window_stride": window_stride(preprocessor.max_length),
            "max_windows": MAX_WINDOWS,
            "pad_id": preprocessor.pad_id,
            "vocabulary_sha256": _vocabulary_sha256(model),
        },
        tensors=tuple(model.input),
        texts=tuple(texts),
        token_ids=_token_ids(probe)[first:],
        probabilities=probabilities[first:],
    )


def _vocabulary_sha256(model: Any) -> str:
    return hashlib.sha256(model.preprocessor.asset_files()["vocab.txt"]).hexdigest()


def _token_ids(probe: Probe) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The ids of each text's windows, not padded."""
    lengths = probe.tensors["padding_mask"].sum(axis=1)
    rows = zip(probe.tensors["token_ids"], lengths, strict=True)
    ids: list[list[tuple[int, ...]]] = [[] for _ in range(len(probe))]
    owners = range(len(probe)) if probe.owners is None else probe.owners.tolist()
    for owner, (row, length) in zip(owners, rows, strict=True):
        ids[owner].append(tuple(row[:length].tolist()))
    return tuple(map(tuple, ids))


def _edge_reasons(model: Any, texts: Sequence[str], probe: Probe, edge: Path) -> list[str]:
    """Says what is wrong with the files that lie beside the TFLite models."""
    wanted = {"labels.txt": b"", **model.preprocessor.asset_files()}
    found = {name: (edge / name).read_bytes() for name in wanted if (edge / name).is_file()}
    reasons = [f"edge/{name} is missing" for name in sorted(set(wanted) - set(found))]
    if "labels.txt" in found:
        reasons.append(check_label_file(found["labels.txt"], model.classes) or "")
    if "vocab.txt" in found:
        wrong = check_vocabulary(
            found["vocab.txt"],
            texts,
            [windows[0] for windows in _token_ids(probe)],
            lowercase=model.preprocessor.lowercase,
            max_length=model.preprocessor.max_length,
            sha256=_vocabulary_sha256(model),
        )
        reasons.append(wrong or "")
    return [f"edge: {reason}" if not reason.startswith("edge/") else reason for reason in reasons if reason]


def _entry(directory: Path, variant: str, judgement: Judgement, answers: Answers) -> dict[str, Any]:
    return {
        "variant": variant,
        "path": artifact_path(variant),
        "bytes": artifact_bytes(directory, variant),
        "examples": judgement.examples,
        "agreement": judgement.agreement,
        "max_abs_difference": judgement.max_abs_difference,
        "accuracy": judgement.accuracy,
        "accuracy_drop": judgement.accuracy_drop,
        "robust_accuracy": None,
        "latency_ms": answers.latency_ms,
        "verdict": "refused" if judgement.reasons else "released",
        "reasons": list(judgement.reasons),
    }
