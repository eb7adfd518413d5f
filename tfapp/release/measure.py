"""Measuring: write the artifacts of a staged release, run each elsewhere, compare with the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tfapp.evaluation.robustness import Robustness
from tfapp.exporters import LABELS, TFLITE_VARIANTS, in_float32, label_file
from tfapp.progress import track
from tfapp.release.answers import Answers, FloatArray, Reference, find_flaw, probabilities_from
from tfapp.release.artifacts import artifact_bytes, check_space, remove_artifact, write_artifact
from tfapp.release.attack_report import AttackReport
from tfapp.release.attacked import attack_artifacts
from tfapp.release.gate import Budget, Judgement, check_label_file, judge
from tfapp.release.golden import INPUTS, Golden, choose_steady
from tfapp.release.golden_texts import TextInputs, token_ids
from tfapp.release.layout import GOLDEN_FILE, artifact_path
from tfapp.release.packed_files import check_packed
from tfapp.release.probe import Probe, RawFeatures
from tfapp.release.processes import ArtifactRunner
from tfapp.release.publish import Staging, own_files
from tfapp.release.vocabulary import check_vocabulary
from tfapp.training.inference import predict_logits

_logger = logging.getLogger("tfapp")
_DRAWS = 3  # golden inputs of each kind, of which the steadiest is kept


@dataclass(frozen=True)
class Measured:
    """What was found out about the artifacts of a staged release.

    Attributes:
        rows: The manifest's entry of each artifact.
        reasons: Why the release is refused; empty when it is not.
        left_out: The manifest's entry of each variant that was beyond its budget and removed.
        libraries: Versions of the libraries that ran the artifacts.
        reference: What the trained model answers on the same rows.
    """

    rows: list[dict[str, Any]]
    reasons: list[str]
    left_out: list[dict[str, Any]]
    libraries: dict[str, str]
    reference: Reference


def measure(
    model: Any,
    split: Any,
    variants: Sequence[str],
    budget: Budget,
    stage: Staging,
    *,
    dispensable: Collection[str] = (),
    calibration: Sequence[Any] = (),
    robustness: Robustness | None = None,
    black_box: tuple[int, int] = (0, 0),
    licence: str = "",
) -> Measured:
    """Writes artifacts and golden vectors into a staged release and measures them.

    Args:
        model: The trained classifier.
        split: The rows to measure on.
        variants: The artifacts to write.
        budget: How far they may be from the model.
        stage: Where they are written.
        dispensable: Those that are removed when they are beyond a limit of the budget, and nothing else is
            wrong with the release.
        calibration: Features by which integer artifacts are calibrated.
        robustness: Adversarial examples of some of these rows, made on the model; None for no attack.
        black_box: Queries a row and rows of the attack on each TFLite and ONNX file itself.
        licence: The terms of the model's parts.

    Returns:
        The measures and the reasons against a release.
    """
    model = in_float32(model)
    preprocessor = model.preprocessor
    kind = INPUTS[preprocessor.feature_name]
    drawn = [value for seed in range(_DRAWS) for value in kind.draw(preprocessor, seed=seed)]
    features = RawFeatures(split.features, drawn)
    check_space(stage.directory, model, variants, features, golden=drawn)
    folder = stage.scratch / "tensors"
    folder.mkdir()
    probe = Probe.from_features(preprocessor, features, inputs=model.input, folder=folder)
    send = None
    if robustness is not None:
        send = partial(
            attack_artifacts,
            model,
            robustness,
            split,
            black_box_queries=black_box[0],
            black_box_examples=black_box[1],
        )
    write = partial(
        write_artifact,
        model,
        directory=stage.release,
        scratch=stage.scratch,
        calibration=calibration,
        min_agreement=budget.min_agreement,
        name=stage.directory.name,
        licence=licence,
    )
    answers, probabilities, attacked = _run(model, probe, variants, stage, write, send)

    rows, total = len(split), len(features)
    beside = {name: answer.rows(range(rows, total)) for name, answer in answers.items()}
    steady = choose_steady(probabilities[rows:], beside.values(), draws=_DRAWS).tolist()
    reference = Reference(probabilities[:rows], split.labels, tuple(model.classes), float(model.temperature))

    def vectors(chosen: Sequence[int]) -> Golden:
        places = [rows + row for row in chosen]
        return Golden(
            feature=preprocessor.feature_name,
            tensor_endpoint=preprocessor.tensor_endpoint,
            classes=tuple(model.classes),
            temperature=float(model.temperature),
            tensors=tuple(model.input),
            inputs=kind.observe(preprocessor, probe, places),
            probabilities=probabilities[places],
        )

    # All that was drawn is judged: those that are kept were chosen because artifacts do well on them.
    everything, golden = vectors(range(total - rows)), vectors(steady)
    judgements: dict[str, Judgement] = {}
    for name in variants:
        judged = judge(name, answers[name].rows(range(rows)), reference, budget)
        if answers[name].error is None:
            wrong = everything.judge(name, beside[name], budget)
            flawed = judged.flawed or find_flaw(beside[name], everything.reference(name)) is not None
            judged = replace(judged, reasons=(*judged.reasons, *wrong), flawed=flawed)
        if attacked is not None:
            judged = replace(judged, reasons=(*judged.reasons, *attacked.reasons(name, budget)))
        if judged.agreement is not None and judged.scale is None:
            _logger.warning(
                "verify: the temperature of %s cannot be checked: none of %d rows tells the scale of its "
                "probabilities' logarithms",
                name,
                rows,
            )
        judgements[name] = judged
        golden.record(name, beside[name].rows(steady))
    damage: list[str] = []
    if set(variants) & set(TFLITE_VARIANTS):
        damage += _edge_reasons(model, probe, golden, stage.release / "edge")
        inside = {LABELS: label_file(model.classes), **preprocessor.asset_files()}
        damage += check_packed(stage.release, variants, inside)
    left_out = [] if damage else _choose_left_out(judgements, dispensable)
    for name in left_out:
        remove_artifact(stage.release, name)
    golden.without(left_out).save(stage.release / GOLDEN_FILE)
    variants = [name for name in variants if name not in left_out]
    reasons = [reason for name in variants for reason in judgements[name].reasons] + damage
    libraries = {key: value for name in variants for key, value in answers[name].libraries.items()}
    entries = [_entry(stage.release, name, judgements[name], answers[name], attacked) for name in variants]
    return Measured(
        rows=entries,
        reasons=reasons,
        left_out=[{"variant": name, "reasons": list(judgements[name].reasons)} for name in left_out],
        libraries=dict(sorted(libraries.items())),
        reference=reference,
    )


def _choose_left_out(judgements: Mapping[str, Judgement], dispensable: Collection[str]) -> list[str]:
    """Names the artifacts that a release can do without; none where it is refused all the same."""
    refused = [name for name, judgement in judgements.items() if judgement.reasons]
    spared = all(name in dispensable and not judgements[name].flawed for name in refused)
    return refused if spared and len(refused) < len(judgements) else []


def _run(
    model: Any,
    probe: Probe,
    variants: Sequence[str],
    stage: Staging,
    write: Callable[[str], str | None],
    attack: Callable[[ArtifactRunner], AttackReport] | None,
) -> tuple[dict[str, Answers], FloatArray, AttackReport | None]:
    """Writes the artifacts while finished ones already answer, asks the model itself, and attacks."""
    answers: dict[str, Answers] = {}
    with ArtifactRunner(
        stage.scratch,
        probe,
        feature=model.preprocessor.feature_name,
        tensor_endpoint=model.preprocessor.tensor_endpoint,
        temperature=float(model.temperature),
    ) as runner:
        for variant in track(variants, len(variants), "write artifacts"):
            error = write(variant)
            if error is None:
                own_files(stage)
                runner.start(variant, stage.release / artifact_path(variant))
            else:
                answers[variant] = Answers(error=error)
        _logger.info("verify: %d rows in a fresh process for each artifact", len(probe))
        logits = predict_logits(model, probe.features, batch_size=32)
        attacked = None if attack is None else attack(runner)
        answers.update(runner.answers())
    return answers, probabilities_from(logits, model.temperature), attacked


def _edge_reasons(model: Any, probe: Probe, golden: Golden, edge: Path) -> list[str]:
    """Says what is wrong with the files that lie beside the TFLite models."""
    wanted = {"labels.txt": b"", **model.preprocessor.asset_files()}
    found = {name: (edge / name).read_bytes() for name in wanted if (edge / name).is_file()}
    reasons = [f"edge/{name} is missing" for name in sorted(set(wanted) - set(found))]
    if "labels.txt" in found:
        reasons.append(check_label_file(found["labels.txt"], model.classes) or "")
    vocabulary = getattr(model.preprocessor, "vocabulary_file", None)
    if vocabulary in found and isinstance(golden.inputs, TextInputs):
        wrong = check_vocabulary(
            found[vocabulary],
            [feature.decode("utf-8") for feature in probe.features],
            [windows[0] for windows in token_ids(probe)],
            golden.inputs.preprocessor,
        )
        reasons.append(wrong or "")
    return [f"edge: {reason}" if not reason.startswith("edge/") else reason for reason in reasons if reason]


def _entry(
    directory: Path,
    variant: str,
    judgement: Judgement,
    answers: Answers,
    attacked: AttackReport | None,
) -> dict[str, Any]:
    found = None if attacked is None else attacked.artifacts.get(variant)
    return {
        "variant": variant,
        "path": artifact_path(variant),
        "bytes": artifact_bytes(directory, variant),
        "examples": judgement.examples,
        "agreement": judgement.agreement,
        "max_abs_difference": judgement.max_abs_difference,
        "accuracy": judgement.accuracy,
        "accuracy_drop": judgement.accuracy_drop,
        "scale": judgement.scale,
        "scale_rows": judgement.scale_rows,
        "robust_accuracy": None if found is None else found.robust_accuracy,
        "robustness": None if attacked is None else attacked.entry(variant),
        "latency_ms": answers.latency_ms,
        "verdict": "refused" if judgement.reasons else "released",
        "reasons": list(judgement.reasons),
    }
