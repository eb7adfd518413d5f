"""The release gate: what an artifact answered, what it should have, and how much difference is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError

EXACT_VARIANTS = ("saved_model", "keras", "float32")
FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Budget:
    """How far an artifact may be from the trained model before the release is refused.

    Args:
        min_agreement: Least share of rows with the same class as the trained model, from 0 to 1.
        max_accuracy_drop: Most accuracy that may be lost, as a fraction from 0 to 1.
        max_abs_difference: Largest difference of a probability on any row, from 0 to 1; None for no limit
            beyond ``max_exact_difference``.
        max_exact_difference: The same for artifacts that promise the trained model's own arithmetic: the
            SavedModel, the Keras file and the float32 TFLite file.

    Raises:
        ConfigError: When a value is not between 0 and 1.
    """

    min_agreement: float = 0.99
    max_accuracy_drop: float = 0.01
    max_abs_difference: float | None = None
    max_exact_difference: float = 0.01

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
class Reference:
    """What the trained model answers, in float32 and with its temperature.

    Attributes:
        probabilities: ``(rows, num_classes)``.
        labels: True classes ``(rows,)``, or None where there are none.
        classes: Names of the classes in their order.
        temperature: What the logits were divided by.
    """

    probabilities: FloatArray
    labels: npt.NDArray[np.integer] | None
    classes: tuple[str, ...]
    temperature: float

    @property
    def accuracy(self) -> float | None:
        """The trained model's share of right answers; None without true classes."""
        if self.labels is None:
            return None
        return float(np.mean(self.probabilities.argmax(axis=1) == self.labels))


@dataclass(frozen=True)
class Answers:
    """What an artifact answered in its own process.

    Attributes:
        error: Why there are no answers; None when there are.
        probabilities: ``(rows, num_classes)``, as they came.
        logits: The same shape, where the artifact has them.
        labels: Class names, one for each row, where the artifact has them.
        endpoints: Largest difference of a probability between an endpoint and ``serving_default``.
        latency_ms: ``p50``, ``p95``, ``threads`` and ``batch``.
        libraries: Versions of the libraries that ran it.
    """

    error: str | None = None
    probabilities: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    logits: FloatArray | None = None
    labels: tuple[str, ...] | None = None
    endpoints: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Mapping[str, float] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Answers:
        """Returns the answers to some of the rows.

        Args:
            start: The first row.
            stop: The row after the last.
        """
        return replace(
            self,
            probabilities=self.probabilities[start:stop],
            logits=None if self.logits is None else self.logits[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
        )


@dataclass(frozen=True)
class Judgement:
    """How an artifact's answers compare with the reference.

    Attributes:
        examples: Rows compared.
        agreement: Share of rows with the same class; None when it could not be measured.
        max_abs_difference: Largest difference of a probability; None when it could not be measured.
        accuracy: Share of right answers; None without true classes.
        accuracy_drop: The reference's accuracy less the artifact's; None without true classes.
        reasons: Why it is refused; empty when it is not.
    """

    examples: int
    agreement: float | None = None
    max_abs_difference: float | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    reasons: tuple[str, ...] = ()


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
    flaw = _flaw(answers, reference)
    if flaw:
        return Judgement(rows, reasons=(f"{variant}: {flaw}",))
    probabilities = np.asarray(answers.probabilities, np.float64)
    chosen, expected = probabilities.argmax(axis=1), reference.probabilities.argmax(axis=1)
    agreement = float(np.mean(chosen == expected))
    gap = min(1.0, float(np.max(np.abs(probabilities - reference.probabilities))))
    reasons = []
    if agreement < budget.min_agreement:
        reasons.append(
            f"{variant}: agrees with the trained model on {agreement:.2%} of {rows} rows, less than "
            f"{budget.min_agreement:.2%} (min_agreement)"
        )
    limit = budget.difference_limit(variant)
    if limit is not None and gap > limit[0]:
        reasons.append(
            f"{variant}: a probability differs by {gap:.4f}, more than {limit[0]:.4f} ({limit[1]})"
        )
    accuracy = drop = None
    if reference.labels is not None and reference.accuracy is not None:
        accuracy = float(np.mean(chosen == reference.labels))
        drop = reference.accuracy - accuracy
        if drop > budget.max_accuracy_drop:
            reasons.append(
                f"{variant}: loses {drop:.2%} accuracy on {rows} rows, more than "
                f"{budget.max_accuracy_drop:.2%} (max_accuracy_drop)"
            )
    reasons += [f"{variant}: {reason}" for reason in _contradictions(answers, reference, budget)]
    return Judgement(rows, agreement, gap, accuracy, drop, tuple(reasons))


def difference(answers: Answers, reference: Reference) -> float | None:
    """Measures the largest difference of a probability.

    Args:
        answers: What an artifact answered.
        reference: What the trained model answers on the same rows.

    Returns:
        The difference, or None when the answers cannot be measured.
    """
    if _flaw(answers, reference):
        return None
    return min(1.0, float(np.max(np.abs(answers.probabilities - reference.probabilities))))


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


def _flaw(answers: Answers, reference: Reference) -> str | None:
    """Says why answers cannot be measured at all, or None."""
    if answers.error is not None:
        return answers.error
    found, expected = answers.probabilities.shape, reference.probabilities.shape
    if found != expected:
        return f"answers have the shape {found} instead of {expected}"
    if answers.labels is not None and len(answers.labels) != len(answers.probabilities):
        return f"{len(answers.labels)} labels for {len(answers.probabilities)} rows"
    if not np.all(np.isfinite(answers.probabilities)):
        return "some probabilities are not finite"
    if np.min(answers.probabilities) < -1e-3 or np.max(np.abs(answers.probabilities.sum(axis=1) - 1)) > 0.02:
        return "the answers are no probabilities: they do not add up to 1"
    return None


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
    if answers.logits is not None and answers.logits.shape == answers.probabilities.shape:
        scaled = np.asarray(answers.logits, np.float64) / reference.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        gap = float(np.max(np.abs(powers / powers.sum(axis=1, keepdims=True) - answers.probabilities)))
        if not gap <= budget.max_exact_difference:
            reasons.append(
                f"its logits and probabilities differ by {gap:.4f} at temperature {reference.temperature:g}"
            )
    for name, gap in answers.endpoints.items():
        if not gap <= budget.max_exact_difference:
            reasons.append(f"its endpoint {name} differs from serving_default by {gap:.4f}")
    return reasons
