"""Accuracies of several models on the same rows, resampled together, so that differences are paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]

from tfapp.evaluation.calibration import FloatArray, IntArray
from tfapp.evaluation.metrics import CONFIDENCE_LEVEL, Interval, class_parts, resampled_sums

_LEAST = 1e-9  # an interval's end this near to 0 is 0


@dataclass(frozen=True, eq=False)
class ResampledScore:
    """A score and what becomes of it when rows and seeds are drawn anew.

    Attributes:
        value: The score, a mean over the seeds.
        samples: The same in each resample, ``(num_bootstrap,)``.
    """

    value: float
    samples: FloatArray

    def __sub__(self, other: ResampledScore) -> ResampledScore:
        return ResampledScore(self.value - other.value, self.samples - other.samples)

    def interval(self, least: float = -1.0, most: float = 1.0) -> Interval:
        """Cuts the 95 % interval out of the samples, moved by their bias as in `metrics.score`.

        Args:
            least: The score's lower bound.
            most: Its upper bound.

        Returns:
            The score and its interval.
        """
        tail = 50 * (1 - CONFIDENCE_LEVEL)
        ends = np.percentile(self.samples, [tail, 100 - tail]) - (self.samples.mean() - self.value)
        low, high = (0.0 if abs(end) < _LEAST else float(end) for end in np.clip(ends, least, most))
        return Interval(self.value, low, high)


def resampled_accuracy(
    predicted: IntArray, labels: npt.NDArray[Any], num_bootstrap: int
) -> tuple[ResampledScore, ResampledScore]:
    """Resamples accuracy and balanced accuracy; every call with as many rows and seeds draws the same.

    Args:
        predicted: Predicted classes with each seed, ``(seeds, rows)``.
        labels: True classes, ``(rows,)``.
        num_bootstrap: Resamples, at least 1. Rows are drawn, and of several seeds the seeds too.

    Returns:
        Both scores, which can be subtracted from those of other models on the same rows.
    """
    truth = np.asarray(labels, np.int64)
    num_classes = int(max(truth.max(), predicted.max())) + 1
    parts: dict[str, sparse.csr_array] = {}
    for number, answers in enumerate(predicted):
        of_seed = class_parts(truth, np.asarray(answers, np.int64), num_classes)
        parts |= {"support": of_seed["support"], f"hits {number}": of_seed["hits"]}
    seeds = len(predicted)
    values = _scores(
        {name: part.sum(axis=1)[:, np.newaxis] for name, part in parts.items()}, np.ones((seeds, 1))
    )
    drawn = np.random.default_rng(seeds).integers(0, seeds, (seeds, num_bootstrap))
    times = np.stack([(drawn == number).sum(axis=0) for number in range(seeds)]).astype(np.float64)
    samples = _scores(resampled_sums(parts, len(truth), num_bootstrap, 0), times)
    accuracy, balanced = (
        ResampledScore(float(value[0]), sample) for value, sample in zip(values, samples, strict=True)
    )
    return accuracy, balanced


def _scores(sums: dict[str, FloatArray], times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Accuracy and balanced accuracy of sums by class ``(num_classes, n)``; each seed counts ``times``."""
    support = np.asarray(sums["support"])
    hits = sum(np.asarray(sums[f"hits {number}"]) * often for number, often in enumerate(times)) / len(times)
    recall = hits / np.maximum(support, 1)
    return hits.sum(axis=0) / support.sum(axis=0), recall.sum(axis=0) / (support > 0).sum(axis=0)
