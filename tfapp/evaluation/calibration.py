"""How far confidences can be believed, and the temperature that makes them honest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar  # type: ignore[import-untyped]
from scipy.special import log_softmax, softmax  # type: ignore[import-untyped]

from tfapp.errors import DataError

logger = logging.getLogger("tfapp")

NUM_BINS = 15
TEMPERATURE_BOUNDS = (0.05, 20.0)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal-width bins, the numbers of a reliability diagram.

    Attributes:
        rows: How many rows fell into each bin, ``(bins,)``.
        confidence: Mean confidence of each bin's rows, ``(bins,)``; 0 where the bin is empty.
        accuracy: Share of right answers in each bin, ``(bins,)``; 0 where the bin is empty.
    """

    rows: IntArray
    confidence: FloatArray
    accuracy: FloatArray

    @property
    def ece(self) -> float:
        """The expected calibration error: the bins' gaps, weighted by their rows."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.rows * gaps) / np.sum(self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Returns the bins as plain lists, ready for JSON."""
        return {
            "rows": self.rows.tolist(),
            "confidence": self.confidence.tolist(),
            "accuracy": self.accuracy.tolist(),
        }


def check_logits(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """Refuses logits and labels that do not belong together.

    Args:
        logits: Scores, ``(rows, num_classes)``, at least one row and two classes.
        labels: Class indices, ``(rows,)``, each in ``[0, num_classes)``.

    Returns:
        The logits as float64 ``(rows, num_classes)`` and the labels as int64 ``(rows,)``.

    Raises:
        DataError: A shape is wrong, there are no rows, a label is out of range or a logit is not finite.
    """
    scores = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"logits must have the shape (rows, num_classes >= 2), but have {scores.shape}")
    if truth.shape != scores.shape[:1]:
        raise DataError(f"logits have {scores.shape[0]} rows, but labels have the shape {truth.shape}")
    if not len(truth):
        raise DataError("there are no rows to evaluate: give a split with at least one row")
    if not np.issubdtype(truth.dtype, np.integer):
        raise DataError(f"labels must be class indices (integers), but are {truth.dtype}")
    outside = np.flatnonzero((truth < 0) | (truth >= scores.shape[1]))
    if len(outside):
        row = int(outside[0])
        raise DataError(f"row {row}: label {truth[row]} is outside 0..{scores.shape[1] - 1}")
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        raise DataError(
            f"row {broken[0]}: a logit is not finite ({len(broken)} such rows). The model has diverged: "
            "train it again with a smaller learning rate"
        )
    return scores, truth.astype(np.int64)


def bin_of(confidence: FloatArray, *, num_bins: int = NUM_BINS) -> IntArray:
    """Finds the equal-width bin ``((m - 1) / M, m / M]`` of each confidence.

    Args:
        confidence: Probabilities of the predicted class, any shape, in (0, 1].
        num_bins: M, the number of bins.

    Returns:
        Bin indices from 0 to ``num_bins - 1``, of the shape of ``confidence``.
    """
    bins: IntArray = np.clip(np.ceil(confidence * num_bins) - 1, 0, num_bins - 1).astype(np.int64)
    return bins


def reliability(
    logits: npt.ArrayLike, labels: npt.ArrayLike, *, temperature: float = 1.0, num_bins: int = NUM_BINS
) -> Reliability:
    """Compares confidence with accuracy in equal-width bins of confidence.

    With bin ``B_m`` holding the rows whose confidence (probability of the predicted class) lies in
    ``((m - 1) / M, m / M]``, the expected calibration error is
    ``ECE = sum_m |B_m| / rows * |accuracy(B_m) - mean confidence(B_m)|``. An estimate from few rows is
    biased upwards: even a perfectly calibrated model shows an ECE above zero.

    Args:
        logits: Scores before the softmax, ``(rows, num_classes)``.
        labels: Class indices, ``(rows,)``.
        temperature: The positive number by which the logits are divided first.
        num_bins: M, the number of bins over [0, 1].

    Returns:
        The bins; their ``ece`` is the expected calibration error, in [0, 1].

    Raises:
        DataError: Logits and labels do not belong together.

    Reference:
        Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks",
        arXiv:1706.04599.
    """
    scores, truth = check_logits(logits, labels)
    confidence = softmax(scores / temperature, axis=1).max(axis=1)
    right = scores.argmax(axis=1) == truth
    bins = bin_of(confidence, num_bins=num_bins)
    rows = np.bincount(bins, minlength=num_bins)
    divisor = np.maximum(rows, 1)
    return Reliability(
        rows=rows.astype(np.int64),
        confidence=np.bincount(bins, weights=confidence, minlength=num_bins) / divisor,
        accuracy=np.bincount(bins, weights=right, minlength=num_bins) / divisor,
    )


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Fits the one number T whose division makes ``softmax(logits / T)`` honest, on held-out rows.

    T minimises the negative log-likelihood within ``TEMPERATURE_BOUNDS``; the predicted classes stay
    as they are. Without a single mistake in the rows the likelihood has no optimum: it grows as T goes
    to zero and every confidence to one. T is then lowered only until the mean confidence reaches
    ``(rows + 1) / (rows + 2)``, what so many right answers support (Laplace's rule of succession),
    never below the bound, and never raised; a warning says so. A fit that ends at a bound is
    warned about, too.

    Args:
        logits: Scores of rows that were not trained on, ``(rows, num_classes)``.
        labels: Class indices, ``(rows,)``.

    Returns:
        The temperature, within ``TEMPERATURE_BOUNDS``; above 1 it lowers confidence.

    Raises:
        DataError: Logits and labels do not belong together.

    Reference:
        Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks",
        arXiv:1706.04599, section 4.2.
    """
    scores, truth = check_logits(logits, labels)
    rows = np.arange(len(truth))
    low, high = TEMPERATURE_BOUNDS
    if np.ptp(scores, axis=1).max() == 0:
        logger.warning("Temperature left at 1: every row's logits are equal, so none changes anything.")
        return 1.0
    runner_up = scores.copy()
    runner_up[rows, truth] = -np.inf
    if np.all(scores[rows, truth] > runner_up.max(axis=1)):
        return _temperature_without_mistakes(scores)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, truth].mean())

    found = minimize_scalar(
        loss, bounds=(np.log(low), np.log(high)), method="bounded", options={"xatol": 1e-6}
    )
    temperature = float(np.clip(np.exp(found.x), low, high))
    if not low * 1.001 < temperature < high / 1.001:
        logger.warning(
            "The fitted temperature stopped at its bound, %.3g: the %d rows do not determine it. "
            "Look at the model's accuracy before you trust its probabilities.",
            temperature,
            len(truth),
        )
    return temperature


def _temperature_without_mistakes(scores: FloatArray) -> float:
    """Lowers T from 1 until the mean confidence is what rows without a mistake support."""
    supported = (len(scores) + 1) / (len(scores) + 2)

    def excess(temperature: float) -> float:
        return float(softmax(scores / temperature, axis=1).max(axis=1).mean()) - supported

    low = TEMPERATURE_BOUNDS[0]
    if excess(1.0) >= 0:
        temperature = 1.0
    elif excess(low) <= 0:
        temperature = low
    else:
        temperature = float(brentq(excess, low, 1.0))
    logger.warning(
        "All %d rows for the temperature are predicted rightly, so their likelihood has no best temperature: "
        "took %.3g, which keeps the mean confidence within what so many rows support.",
        len(scores),
        temperature,
    )
    return temperature
