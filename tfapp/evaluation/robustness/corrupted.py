"""Accuracy under common corruptions: what weather, cameras and typing errors do, without an adversary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfapp.data.drawing import draw_rows
from tfapp.data.image_store import png_file
from tfapp.evaluation.checks import check_split
from tfapp.evaluation.report import table_lines
from tfapp.evaluation.robustness.intervals import wilson_interval
from tfapp.progress import track


@dataclass(frozen=True, eq=False)
class CorruptionAccuracy:
    """Accuracy on corrupted rows.

    Attributes:
        split: Name of the split.
        examples: How many rows, drawn by the seed.
        seed: Seed of the rows and of the corruptions.
        clean_accuracy: Accuracy on the rows as they are.
        accuracy: For each corruption its accuracies by severity, in the order of ``severities``.
        severities: The severities, from 1 to 5.
    """

    split: str
    examples: int
    seed: int
    clean_accuracy: float
    accuracy: dict[str, tuple[float, ...]]
    severities: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean over all corruptions and severities."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def clean_interval95(self) -> tuple[float, float]:
        """The 95 % interval of ``clean_accuracy``."""
        return self._interval(self.clean_accuracy)

    @property
    def intervals95(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """The 95 % intervals of ``accuracy``, in the same order."""
        return {name: tuple(map(self._interval, values)) for name, values in self.accuracy.items()}

    def cells(self) -> list[list[str]]:
        """Words each corruption's name, and its accuracies with their intervals."""
        return [
            [
                name,
                *(
                    f"{value:.4f} [{low:.3f}, {high:.3f}]"
                    for value, (low, high) in zip(self.accuracy[name], intervals, strict=True)
                ),
            ]
            for name, intervals in self.intervals95.items()
        ]

    def _interval(self, accuracy: float) -> tuple[float, float]:
        return wilson_interval(round(accuracy * self.examples), self.examples)

    def lines(self) -> list[str]:
        """Words the accuracies for people, one string a line."""
        header = ("corruption", *(f"severity {severity}" for severity in self.severities), "mean")
        body = [(*cells, f"{np.mean(self.accuracy[cells[0]]):.4f}") for cells in self.cells()]
        low, high = self.clean_interval95
        first = (
            f"{self.split}: accuracy {self.mean:.4f} under corruptions, {self.clean_accuracy:.4f} "
            f"[{low:.4f}, {high:.4f}] without (95% intervals), {self.examples:,} examples, seed {self.seed}"
        )
        return [first, *table_lines(header, body)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, ready for JSON."""
        return {
            "split": self.split,
            "examples": self.examples,
            "seed": self.seed,
            "clean_accuracy": self.clean_accuracy,
            "clean_interval95": list(self.clean_interval95),
            "severities": list(self.severities),
            "accuracy": {name: list(values) for name, values in self.accuracy.items()},
            "intervals95": {
                name: [list(interval) for interval in intervals]
                for name, intervals in self.intervals95.items()
            },
            "mean": self.mean,
        }


def evaluate_corruptions(
    model: Any,
    split: Any,
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    examples: int = 500,
    batch_size: int = 128,
    seed: int = 0,
) -> CorruptionAccuracy:
    """Measures accuracy under common corruptions of images or texts.

    Images are corrupted as the network takes them, after decoding and resizing.

    Args:
        model: A classifier with its preprocessor.
        split: Rows with labels.
        corruptions: Names of `IMAGE_CORRUPTIONS` or `TEXT_CORRUPTIONS`; all that go with the rows when None.
        severities: From 1 to 5.
        examples: How many rows, drawn by ``seed``; all where it has fewer.
        batch_size: Rows computed at once.
        seed: Seed of the rows and of the corruptions.

    Returns:
        The accuracies.

    Raises:
        ConfigError: If a corruption or a severity is unknown.
        DataError: If the split does not go with the model.

    Reference:
        Hendrycks and Dietterich (2019), "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", arXiv:1903.12261.
    """
    from tfapp.data.corruptions import (
        IMAGE_CORRUPTIONS,
        TEXT_CORRUPTIONS,
        check_corruption,
        corrupt_images,
        corrupt_texts,
    )
    from tfapp.training.inference import predict_logits  # TensorFlow loads only where a model runs

    check_split(split, model.classes)
    on_pixels = "pixels" in model.input
    known: dict[str, Any] = dict(IMAGE_CORRUPTIONS if on_pixels else TEXT_CORRUPTIONS)
    names = tuple(known) if corruptions is None else tuple(corruptions)
    for name in names:
        for severity in severities:
            check_corruption(name, severity, known)
    rows, labels, _ = draw_rows(split, examples, seed=seed)
    if on_pixels:
        rows = model.preprocessor.fixed(rows)[0]["pixels"]

    def accuracy(features: Sequence[Any]) -> float:
        encoded = [png_file(image) for image in features] if on_pixels else list(features)
        logits = predict_logits(model, encoded, batch_size=batch_size)
        return float(np.mean(logits.argmax(axis=1) == labels))

    corrupt: Any = corrupt_images if on_pixels else corrupt_texts
    tasks = [(name, severity) for name in names for severity in severities]
    found: dict[str, list[float]] = {name: [] for name in names}
    for name, severity in track(tasks, len(tasks), "corrupt"):
        found[name].append(accuracy(corrupt(rows, name, severity, seed)))
    return CorruptionAccuracy(
        split=split.name,
        examples=len(labels),
        seed=seed,
        clean_accuracy=accuracy(rows),
        accuracy={name: tuple(values) for name, values in found.items()},
        severities=tuple(severities),
    )
