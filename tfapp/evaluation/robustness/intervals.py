"""Shares of rows with their intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest  # type: ignore[import-untyped]

from tfapp.evaluation.metrics import CONFIDENCE_LEVEL


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """Computes the 95 % interval of a share by Wilson's score.

    Unlike a bootstrap it has a width at shares of 0 and 1, where robust accuracies often are.

    Args:
        right: Rows that count.
        rows: All rows, 1 or more.

    Returns:
        Lower and upper end, from 0 to 1.

    Reference:
        Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference"; Brown, Cai and
        DasGupta (2001), "Interval Estimation for a Binomial Proportion".
    """
    interval = binomtest(right, rows).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def share_and_interval(right: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Computes the share of rows that count, and its interval.

    Args:
        right: Which rows count, ``(rows,)``.

    Returns:
        The share and its 95 % interval.
    """
    count = int(np.sum(right))
    return count / len(right), wilson_interval(count, len(right))
