"""What a release says of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.evaluation.calibration import reliability
from tfapp.release.answers import Reference

_LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class ClassFigures:
    """Answers of the trained model by class.

    Attributes:
        classes: Names of the classes in their order.
        confusion: Rows by true class (first axis) and predicted class.
        reliability: Bins of confidence by what they are of, each with ``rows``, ``confidence``, ``accuracy``.
    """

    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    reliability: Mapping[str, Mapping[str, Sequence[float]]]

    @classmethod
    def of(cls, metrics: Mapping[str, Any], reference: Reference) -> ClassFigures:
        """Takes the figures of an evaluation, or reckons them from the answers of the model.

        Args:
            metrics: The scores that the release was given, which may lack all of it.
            reference: What the model answers on the rows that the release was checked with.

        Returns:
            The figures.
        """
        count = len(reference.classes)
        confusion = np.asarray(metrics.get("confusion", ()))
        if confusion.shape == (count, count) and np.issubdtype(confusion.dtype, np.integer):
            bins = {
                words: metrics[key]
                for key, words in (
                    ("reliability", "at temperature 1"),
                    ("reliability_calibrated", f"at temperature {reference.temperature:.3g}, as released"),
                )
                if _are_bins(metrics.get(key))
            }
            return cls(reference.classes, confusion.astype(np.int64), bins)
        labels = np.zeros(0, np.int64) if reference.labels is None else np.asarray(reference.labels, np.int64)
        counts = np.zeros((count, count), np.int64)
        np.add.at(counts, (labels, reference.probabilities.argmax(axis=1)[: len(labels)]), 1)
        logits = np.log(np.maximum(reference.probabilities, _LEAST_PROBABILITY))
        found = {"as released": reliability(logits, labels).to_dict()} if len(labels) else {}
        return cls(reference.classes, counts, found)

    def class_rows(self) -> list[dict[str, str]]:
        """Returns precision, recall and F1 of each class, for people to read; the lowest F1 first."""
        hits = np.diag(self.confusion).astype(float)
        given, told = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall, f1 = hits / told, hits / given, 2 * hits / (given + told)
        order = np.argsort(np.nan_to_num(f1, nan=2.0), kind="stable")
        return [
            {
                "class": self.classes[index],
                "precision": _share(precision[index]),
                "recall": _share(recall[index]),
                "F1": _share(f1[index]),
                "rows": f"{given[index]:,}",
            }
            for index in order.tolist()
        ]

    def confused(self, most: int) -> list[dict[str, str]]:
        """Returns the pairs of classes that are confused most, for people to read.

        Args:
            most: How many at most.
        """
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = (divmod(int(place), len(self.classes)) for place in order)
        return [
            {"true": self.classes[i], "predicted": self.classes[j], "rows": f"{wrong[i, j]:,}"}
            for i, j in pairs
            if wrong[i, j]
        ]


def _are_bins(found: Any) -> bool:
    if not isinstance(found, Mapping):
        return False
    parts = [found.get(part) for part in ("rows", "confidence", "accuracy")]
    return all(isinstance(part, list) and len(part) == len(parts[0] or ()) > 0 for part in parts)


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
