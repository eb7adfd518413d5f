"""What artifacts answered, what the trained model answers, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.special import softmax  # type: ignore[import-untyped]

FloatArray = npt.NDArray[np.floating]
# Classes that the model gives less than this say little about the scale; half the temperature squares them.
_LEAST_PROBABILITY = 1e-7
# A probability of this many steps is off by rounding by a few percent at most.
_STEPS = 16
# Below this mean square the model's log-probabilities are all alike, and have no scale.
_LEAST_SPREAD = 1e-6


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
        endpoint_labels: Rows that an endpoint gives another class name than ``serving_default``, by endpoint.
        latency_ms: ``p50``, ``p95``, ``threads`` and ``batch``.
        libraries: Versions of the libraries that ran it.
        step: Least difference between two probabilities where they come as integers, else 0.
        inputs: Of each input tensor of a TFLite file its type, scale and zero point; a scale of 0 where its
            values stand for themselves.
    """

    error: str | None = None
    probabilities: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    logits: FloatArray | None = None
    labels: tuple[str, ...] | None = None
    endpoints: Mapping[str, float] = field(default_factory=dict)
    endpoint_labels: Mapping[str, int] = field(default_factory=dict)
    latency_ms: Mapping[str, float] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    step: float = 0.0
    inputs: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)

    def rows(self, chosen: Sequence[int]) -> Answers:
        """Returns the answers to some of the rows, as far as there are any.

        Args:
            chosen: The rows.
        """

        def taken(values: FloatArray) -> FloatArray:
            return values[[row for row in chosen if row < len(values)]]

        return replace(
            self,
            probabilities=taken(self.probabilities),
            logits=None if self.logits is None else taken(self.logits),
            labels=None if self.labels is None else tuple(taken(np.array(self.labels, object)).tolist()),
        )


def probabilities_from(logits: npt.ArrayLike, temperature: float) -> FloatArray:
    """Computes the probabilities that logits stand for.

    Args:
        logits: ``(rows, num_classes)``.
        temperature: What they are divided by.

    Returns:
        float64 ``(rows, num_classes)``.
    """
    probabilities: FloatArray = softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return probabilities


def find_flaw(answers: Answers, reference: Reference) -> str | None:
    """Says why answers cannot be measured at all.

    Args:
        answers: What an artifact answered.
        reference: What the trained model answers on the same rows.

    Returns:
        The reason, or None when they can be measured.
    """
    if answers.error is not None:
        return answers.error
    found, expected = answers.probabilities.shape, reference.probabilities.shape
    if found != expected:
        return f"answers have the shape {found} instead of {expected}"
    if answers.logits is not None and answers.logits.shape != expected:
        return f"logits have the shape {answers.logits.shape} instead of {expected}"
    if answers.labels is not None and len(answers.labels) != len(answers.probabilities):
        return f"{len(answers.labels)} labels for {len(answers.probabilities)} rows"
    if not np.all(np.isfinite(answers.probabilities)):
        return "some probabilities are not finite"
    rounding = 0.02 + answers.step * expected[1] / 2
    sums = answers.probabilities.sum(axis=1)
    if np.min(answers.probabilities) < -1e-3 or np.max(np.abs(sums - 1)) > rounding:
        return "the answers are no probabilities: they do not add up to 1"
    return None


def differences(answers: Answers, reference: Reference) -> FloatArray:
    """Measures the largest difference of a probability in each row.

    Args:
        answers: What an artifact answered, without a flaw.
        reference: What the trained model answers on the same rows.

    Returns:
        ``(rows,)``, from 0 to 1.
    """
    gaps = np.abs(np.asarray(answers.probabilities, np.float64) - reference.probabilities)
    largest: FloatArray = np.minimum(1.0, gaps.max(axis=1))
    return largest


def telling_classes(expected: FloatArray, *, step: float = 0.0) -> npt.NDArray[np.bool_]:
    """Finds the classes whose probabilities tell an artifact's scale.

    Args:
        expected: The model's probabilities ``(rows, num_classes)``.
        step: Least difference between two probabilities of the artifact.

    Returns:
        ``(rows, num_classes)``: those that the model gives more than a few steps, in rows that have two or
        more of them.
    """
    counted = expected > max(_LEAST_PROBABILITY, _STEPS * step)
    telling: npt.NDArray[np.bool_] = counted & (counted.sum(axis=1, keepdims=True) > 1)
    return telling


def log_scale(found: FloatArray, expected: FloatArray, *, step: float = 0.0) -> float | None:
    """Fits the number by which log-probabilities were multiplied; another temperature does just that.

    Agreement does not see it, and differences of probabilities are small where the model is sure.

    Args:
        found: Probabilities of an artifact ``(rows, num_classes)``.
        expected: The model's.
        step: Least difference between two found probabilities, see `telling_classes`.

    Returns:
        The slope of the one on the other, each row's classes centred; None where it cannot be measured: no
        row tells it, or the model's classes are all alike.
    """
    counted = telling_classes(expected, step=step)

    def centred(probabilities: FloatArray) -> FloatArray:
        logs = np.log(np.maximum(probabilities, max(_LEAST_PROBABILITY**2, step / 2)))
        counts = np.maximum(counted.sum(axis=1, keepdims=True), 1)
        means = np.sum(logs * counted, axis=1, keepdims=True) / counts
        result: FloatArray = (logs - means) * counted
        return result

    model, artifact = centred(expected), centred(found)
    spread = float(np.sum(model**2))
    return None if spread < _LEAST_SPREAD * model.size else float(np.sum(model * artifact)) / spread
