"""Two models on the same rows: what only one of them has right, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest  # type: ignore[import-untyped]

from tfapp.errors import DataError
from tfapp.evaluation.calibration import IntArray
from tfapp.evaluation.metrics import Interval
from tfapp.evaluation.paired import resampled_accuracy


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracies of two models on the same rows.

    Attributes:
        before: The first model's, with its 95 % interval.
        after: The second model's.
        difference: The second's less the first's, resampled by rows together.
        only_before: Rows that only the first has right.
        only_after: Rows that only the second has right.
        p_value: Exact two-sided McNemar test: how likely a split of these rows at least as uneven is when
            both models are as good.
    """

    before: Interval
    after: Interval
    difference: Interval
    only_before: int
    only_after: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures, ready for JSON."""
        return {
            "accuracy_before": self.before.to_dict(),
            "accuracy_after": self.after.to_dict(),
            "difference": self.difference.to_dict(),
            "mcnemar": {
                "only_before_right": self.only_before,
                "only_after_right": self.only_after,
                "p_value": self.p_value,
            },
        }


def paired_accuracy(
    before: IntArray, after: IntArray, labels: npt.NDArray[Any], *, num_bootstrap: int = 1000
) -> PairedAccuracy:
    """Compares the accuracies of two models.

    Args:
        before: Classes that the first predicts, ``(rows,)``.
        after: Classes that the second predicts, ``(rows,)``.
        labels: True classes, ``(rows,)``.
        num_bootstrap: Resamples behind the intervals, at least 1.

    Returns:
        The comparison.

    Raises:
        DataError: When there are no rows, or not as many answers.

    Reference:
        McNemar (1947), "Note on the sampling error of the difference between correlated proportions or
        percentages".
    """
    if not len(labels) or {len(before), len(after)} != {len(labels)}:
        raise DataError(
            f"answers to {len(before):,} and {len(after):,} rows do not fit {len(labels):,} labels."
        )
    first, _ = resampled_accuracy(before[np.newaxis], labels, num_bootstrap)
    second, _ = resampled_accuracy(after[np.newaxis], labels, num_bootstrap)
    right = np.asarray(before) == labels, np.asarray(after) == labels
    lost, won = int(np.sum(right[0] & ~right[1])), int(np.sum(~right[0] & right[1]))
    p_value = float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0
    return PairedAccuracy(
        first.interval(0.0), second.interval(0.0), (second - first).interval(), lost, won, p_value
    )
