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
from tfapp.evaluation.robustness.intervals import share_and_interval
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

    def lines(self) -> list[str]:
        """Words the accuracies for people, one string a line."""
        header = ("corruption", *(f"severity {severity}" for severity in self.severities), "mean")
        body = [
            (name, *(f"{value:.4f}" for value in values), f"{np.mean(values):.4f}")
            for name, values in self.accuracy.items()
        ]
        first = (
            f"{self.split}: accuracy {self.mean:.4f} under corruptions, {self.clean_accuracy:.4f} without, "
            f"{self.examples:,} examples, seed {self.seed}"
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
            "severities": list(self.severities),
            "accuracy": {name: list(values) for name, values in self.accuracy.items()},
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
        return share_and_interval(logits.argmax(axis=1) == labels)[0]

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
