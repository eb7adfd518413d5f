"""Scores of single-label predictions, each with a bootstrap interval; numpy and scikit-learn only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]
from scipy.special import log_softmax  # type: ignore[import-untyped]
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, recall_score

from tfapp.errors import ConfigError
from tfapp.evaluation.calibration import NUM_BINS, FloatArray, IntArray, bin_of, check_logits, reliability

CONFIDENCE_LEVEL = 0.95
_DRAWS_AT_ONCE = 1_000_000  # some 30 MB of resamples at a time


@dataclass(frozen=True)
class Interval:
    """A score with the interval in which it would fall on other samples of the same data.

    Attributes:
        value: The score on the split as it is.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def to_dict(self) -> dict[str, float]:
        """Returns ``{"value", "low", "high"}``."""
        return asdict(self)


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class; None where a score is undefined.

    Attributes:
        name: The class.
        precision: Share of right answers among the rows predicted as this class; None if there are none.
        recall: Share of the class's rows that were found; None if the split has no row of it.
        f1: Harmonic mean of both with its interval; None if the class is neither in the split nor predicted.
        support: How many rows of the split are of this class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: Interval | None
    support: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dict, ready for JSON."""
        return asdict(self)


def class_scores(
    labels: IntArray,
    predicted: IntArray,
    classes: tuple[str, ...],
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[ClassScores, ...]:
    """Computes precision, recall, F1 and support of each class.

    Args:
        labels: True class indices, ``(rows,)``.
        predicted: Predicted class indices, ``(rows,)``.
        classes: Names of the classes, in the order of the indices.
        num_bootstrap: Number of resamples behind each interval, at least 1; the same ones as in `score`.
        seed: Seed of the resampling.

    Returns:
        One entry for each class, in the order of ``classes``.
    """
    columns = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=np.nan
    )
    sums = resampled_sums(class_parts(labels, predicted, len(classes)), len(labels), num_bootstrap, seed)
    samples, either = _f1(sums)
    # A resample without any row of a class says nothing about it.
    intervals = [
        None if np.isnan(f1) else _interval("f1", float(f1), row[there] if there.any() else np.array([f1]))
        for f1, row, there in zip(columns[2], samples, either > 0, strict=True)
    ]
    return tuple(
        ClassScores(name, _or_none(precision), _or_none(recall), f1, int(support))
        for name, precision, recall, f1, support in zip(
            classes, columns[0], columns[1], intervals, columns[3], strict=True
        )
    )


def _or_none(fraction: float) -> float | None:
    return None if np.isnan(fraction) else float(fraction)


def score(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    temperature: float = 1.0,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Computes every scalar score and its 95 % bootstrap interval.

    One set of resamples of the rows serves all scores. An interval runs from the 2.5th to the 97.5th
    percentile of the resampled scores, moved by their bias (their mean minus the value) and kept within the
    score's range. The bias is nil for accuracy and log loss; but a resample repeats rows, which lifts the
    ECE of nearly every resample and lowers macro F1 where classes are small, so that unmoved percentiles
    may not even hold the value. A split without a single mistake has an accuracy interval of no width: it
    says nothing about rarer mistakes.

    Args:
        logits: Scores before the softmax, ``(rows, num_classes)``.
        labels: Class indices, ``(rows,)``.
        temperature: By what the logits are divided for the ``_calibrated`` scores.
        num_bootstrap: Number of resamples, at least 1.
        seed: Seed of the resampling.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that have rows), ``macro_f1`` (mean
        over the classes that have rows or are predicted), ``log_loss`` (nats), ``log_loss_calibrated``,
        ``ece`` and ``ece_calibrated`` (see ``calibration.reliability``).

    Raises:
        DataError: Logits and labels do not belong together.
        ConfigError: ``num_bootstrap`` or ``temperature`` is out of range.

    Reference:
        Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.
    """
    scores, truth = check_logits(logits, labels)
    if num_bootstrap < 1:
        raise ConfigError(f"num_bootstrap = {num_bootstrap}: it must be at least 1 (1000 is usual)")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature = {temperature}: it must be a finite number above 0")
    predicted = scores.argmax(axis=1)
    values = {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": float(
            recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0)
        ),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
    }
    rows = np.arange(len(truth))
    parts = class_parts(truth, predicted, scores.shape[1])
    for suffix, divisor in (("", 1.0), ("_calibrated", temperature)):
        log_probabilities = log_softmax(scores / divisor, axis=1)
        losses = -log_probabilities[rows, truth]
        confidence = np.exp(log_probabilities.max(axis=1))
        gaps = (predicted == truth) - confidence
        parts["log_loss" + suffix] = sparse.csr_array(losses[None])
        parts["ece" + suffix] = sparse.csr_array(
            (gaps, (bin_of(confidence), rows)), shape=(NUM_BINS, len(rows))
        )
        values["log_loss" + suffix] = float(losses.mean())
        values["ece" + suffix] = reliability(scores, truth, temperature=divisor).ece
    samples = _resample(parts, len(truth), num_bootstrap, seed)
    return {name: _interval(name, value, samples[name]) for name, value in values.items()}


def class_parts(labels: IntArray, predicted: IntArray, num_classes: int) -> dict[str, sparse.csr_array]:
    """Marks for each class the rows of it, predicted as it, and both: ``(num_classes, rows)``."""
    rows, shape = np.arange(len(labels)), (num_classes, len(labels))
    right = np.flatnonzero(labels == predicted)
    return {
        "support": sparse.csr_array((np.ones(len(rows)), (labels, rows)), shape=shape),
        "claimed": sparse.csr_array((np.ones(len(rows)), (predicted, rows)), shape=shape),
        "hits": sparse.csr_array((np.ones(len(right)), (labels[right], right)), shape=shape),
    }


def resampled_sums(
    parts: dict[str, sparse.csr_array], rows: int, num_bootstrap: int, seed: int
) -> dict[str, FloatArray]:
    """Sums parts over resamples of the rows, ``(.., num_bootstrap)``, a row as often as it was drawn."""
    generator = np.random.default_rng(seed)
    matrix = sparse.vstack(list(parts.values()), format="csr")
    borders = np.cumsum([part.shape[0] for part in parts.values()])[:-1]
    sums = []
    at_once = max(1, _DRAWS_AT_ONCE // rows)
    for start in range(0, num_bootstrap, at_once):
        count = min(at_once, num_bootstrap - start)
        drawn = generator.integers(0, rows, size=(rows, count)) * count + np.arange(count)
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        sums.append(matrix @ times.astype(np.float64))
    return dict(zip(parts, np.split(np.concatenate(sums, axis=1), borders), strict=True))


def _f1(total: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """F1 of each class in each resample, and how many rows are of it or predicted as it."""
    either = total["support"] + total["claimed"]
    return 2 * total["hits"] / np.maximum(either, 1), either


def _resample(
    parts: dict[str, sparse.csr_array], rows: int, num_bootstrap: int, seed: int
) -> dict[str, FloatArray]:
    """Computes each scalar score for resamples of the rows."""
    total = resampled_sums(parts, rows, num_bootstrap, seed)
    support, hits = total["support"], total["hits"]
    recall = hits / np.maximum(support, 1)
    f1, either = _f1(total)
    samples = {
        "accuracy": hits.sum(axis=0) / rows,
        "balanced_accuracy": recall.sum(axis=0) / (support > 0).sum(axis=0),
        "macro_f1": f1.sum(axis=0) / (either > 0).sum(axis=0),
    }
    for suffix in ("", "_calibrated"):
        samples["log_loss" + suffix] = total["log_loss" + suffix][0] / rows
        samples["ece" + suffix] = np.abs(total["ece" + suffix]).sum(axis=0) / rows
    return samples


def _interval(name: str, value: float, samples: FloatArray) -> Interval:
    """Cuts the interval out of the resampled scores, moved by their bias: see ``score``."""
    tail = 50 * (1 - CONFIDENCE_LEVEL)
    ends = np.percentile(samples, [tail, 100 - tail]) - (samples.mean() - value)
    low, high = np.clip(ends, 0.0, np.inf if name.startswith("log_loss") else 1.0)
    return Interval(value, float(low), float(high))
