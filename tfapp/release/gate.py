"""The release gate: how much difference between an artifact and the trained model is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfapp.errors import ConfigError
from tfapp.release.answers import (
    Answers,
    Reference,
    differences,
    find_flaw,
    log_scale,
    probabilities_from,
    telling_classes,
)

EXACT_VARIANTS = ("saved_model", "keras", "float32", "onnx")
DISPENSABLE_VARIANTS = ("float16", "dynamic", "int8", "text", "onnx")
"""Converted files, which a release can do without where nobody asked for them."""
ROUNDING = 1e-9
"""Room for the rounding of shares: 0.98 - 0.97 is a little more than 0.01."""


@dataclass(frozen=True)
class Budget:
    """How far an artifact may be from the trained model before it is refused.

    Args:
        min_agreement: Least share of rows with the same class as the trained model, from 0 to 1.
        max_accuracy_drop: Most accuracy that may be lost, as a fraction from 0 to 1.
        max_abs_difference: Largest difference of a probability on any row, from 0 to 1; None for no limit
            beyond ``max_exact_difference``.
        max_exact_difference: The same for artifacts that promise the trained model's own arithmetic: the
            SavedModel, the Keras file, the float32 TFLite file and the ONNX file.
        max_scale_error: Most by which the scale of an artifact's log-probabilities may be off the trained
            model's, from 0 to 1; another temperature shows there and nowhere else. Where no row tells the
            scale, as with integers of a model that is always sure, it limits nothing, and the manifest
            says so.
        max_golden_difference: Largest difference of a probability on a golden vector, from 0 to 1, for
            artifacts with rounded weights.
        min_robust_accuracy: Least robust accuracy of the model and of every artifact that is attacked, from 0
            to 1; None for no limit. It needs an attack.
        max_robust_accuracy_drop: Most robust accuracy that an artifact may lose against the model under the
            same attack, as a fraction from 0 to 1.

    Raises:
        ConfigError: When a value is not between 0 and 1.
    """

    min_agreement: float = 0.99
    max_accuracy_drop: float = 0.01
    max_abs_difference: float | None = None
    max_exact_difference: float = 0.01
    max_scale_error: float = 0.1
    max_golden_difference: float = 0.5
    min_robust_accuracy: float | None = None
    max_robust_accuracy_drop: float = 0.02

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} = {value}: a budget is a fraction from 0 to 1.")

    def difference_limit(self, variant: str) -> tuple[float, str] | None:
        """Returns the largest difference of a probability that a variant may show.

        Args:
            variant: The artifact's variant.

        Returns:
            The limit and its name, or None for no limit.
        """
        names = ["max_abs_difference"]
        if variant in EXACT_VARIANTS:
            names.append("max_exact_difference")
        limits = [(value, name) for name in names if (value := getattr(self, name)) is not None]
        return min(limits, default=None)


@dataclass(frozen=True)
class Judgement:
    """How an artifact's answers compare with the reference.

    Attributes:
        examples: Rows compared.
        agreement: Share of rows with the same class; None when it could not be measured.
        max_abs_difference: Largest difference of a probability; None when it could not be measured.
        accuracy: Share of right answers; None without true classes.
        accuracy_drop: The reference's accuracy less the artifact's; None without true classes.
        scale: What the artifact's log-probabilities are to the model's; None when it could not be measured.
        scale_rows: Rows that it was measured on; 0 when it could not be measured.
        reasons: Why it is refused; empty when it is not.
        flawed: Whether one of the reasons is no limit of the budget, but damage or a contradiction.
    """

    examples: int
    agreement: float | None = None
    max_abs_difference: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    scale: float | None = None
    scale_rows: int = 0
    reasons: tuple[str, ...] = ()
    flawed: bool = False


def judge(variant: str, answers: Answers, reference: Reference, budget: Budget) -> Judgement:
    """Measures an artifact against the trained model.

    Args:
        variant: The artifact's variant.
        answers: What it answered on the reference's rows.
        reference: What the trained model answers.
        budget: How much difference is allowed.

    Returns:
        The measures, and a reason for every broken limit.
    """
    rows = len(reference.probabilities)
    flaw = find_flaw(answers, reference)
    if flaw:
        return Judgement(rows, reasons=(f"{variant}: {flaw}",), flawed=True)
    probabilities = np.asarray(answers.probabilities, np.float64)
    chosen, expected = probabilities.argmax(axis=1), reference.probabilities.argmax(axis=1)
    agreement = float(np.mean(chosen == expected))
    gap = float(differences(answers, reference).max())
    reasons = []
    if agreement < budget.min_agreement - ROUNDING:
        reasons.append(
            f"agrees with the trained model on {agreement:.2%} of {rows} rows, less than "
            f"{budget.min_agreement:.2%} (min_agreement)"
        )
    limit = budget.difference_limit(variant)
    if limit is not None and gap > limit[0]:
        reasons.append(f"a probability differs by {gap:.4f}, more than {limit[0]:.4f} ({limit[1]})")
    accuracy = drop = None
    if reference.labels is not None and reference.accuracy is not None:
        accuracy = float(np.mean(chosen == reference.labels))
        drop = reference.accuracy - accuracy
        if drop > budget.max_accuracy_drop + ROUNDING:
            reasons.append(
                f"loses {drop:.2%} accuracy on {rows} rows, more than "
                f"{budget.max_accuracy_drop:.2%} (max_accuracy_drop)"
            )
    scale = log_scale(probabilities, reference.probabilities, step=answers.step)
    telling = telling_classes(reference.probabilities, step=answers.step).any(axis=1)
    scale_rows = 0 if scale is None else int(np.sum(telling))
    if scale is not None and abs(scale - 1) > budget.max_scale_error + ROUNDING:
        factor = f": its temperature is {1 / scale:.2f} times the model's" if scale > 0 else ""
        reasons.append(
            f"the logarithms of its probabilities are {scale:.2f} times the model's, off by more than "
            f"{budget.max_scale_error:.2f} (max_scale_error){factor}"
        )
    flaws = _input_reasons(answers) if variant == "int8" else []
    flaws += _contradictions(answers, reference, budget)
    return Judgement(
        examples=rows,
        agreement=agreement,
        max_abs_difference=gap,
        accuracy=accuracy,
        accuracy_drop=drop,
        scale=scale,
        scale_rows=scale_rows,
        reasons=tuple(f"{variant}: {reason}" for reason in reasons + flaws),
        flawed=bool(flaws),
    )


def check_label_file(content: bytes, classes: Sequence[str]) -> str | None:
    """Compares ``labels.txt`` with the classes.

    Args:
        content: The file.
        classes: Names of the classes in their order.

    Returns:
        What is wrong, or None.
    """
    found = content.decode("utf-8", "replace").splitlines()
    if found == list(classes):
        return None
    if sorted(found) == sorted(classes):
        return f"labels.txt lists the classes as {found}, but the model's order is {list(classes)}"
    return f"labels.txt lists {found}, but the model's classes are {list(classes)}"


def _input_reasons(answers: Answers) -> list[str]:
    """Lists the inputs of an integer file whose integers are not the grey levels that a device has."""
    if not answers.inputs:
        return ["does not say what its inputs are, so its integers may be no grey levels. Export it again"]
    return [
        f"takes {name} as {kind} with scale {scale:g} and zero point {zero:g} instead of as uint8 with 1 and "
        "0: an integer would not be a grey level. Export it again, calibrated on whole images"
        for name, (kind, scale, zero) in answers.inputs.items()
        if (kind, round(scale, 6), zero) != ("uint8", 1.0, 0.0)
    ]


def _contradictions(answers: Answers, reference: Reference, budget: Budget) -> list[str]:
    """Lists where the outputs of one artifact do not fit each other."""
    reasons = []
    if answers.labels is not None:
        named = [reference.classes[index] for index in answers.probabilities.argmax(axis=1)]
        wrong = [pair for pair in zip(answers.labels, named, strict=True) if pair[0] != pair[1]]
        if wrong:
            reasons.append(
                f"names {len(wrong)} of {len(named)} rows wrongly, for instance {wrong[0][0]!r} where its "
                f"probabilities say {wrong[0][1]!r}: its class list is not {list(reference.classes)}"
            )
    if answers.logits is not None:
        expected = probabilities_from(answers.logits, reference.temperature)
        gap = float(np.max(np.abs(expected - answers.probabilities)))
        if not gap <= budget.max_exact_difference:
            reasons.append(
                f"its logits and probabilities differ by {gap:.4f} at temperature {reference.temperature:g}"
            )
    for name, gap in answers.endpoints.items():
        if not gap <= budget.max_exact_difference:
            reasons.append(f"its endpoint {name} differs from serving_default by {gap:.4f}")
    for name, rows in answers.endpoint_labels.items():
        if rows:
            reasons.append(f"its endpoint {name} names {rows} rows otherwise than serving_default")
    return reasons
