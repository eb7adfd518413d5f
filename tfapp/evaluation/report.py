"""What an evaluation found: as a table for people, as JSON for programs, as files for a run's folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.errors import OutputError
from tfapp.evaluation.calibration import FloatArray, IntArray, Reliability
from tfapp.evaluation.metrics import CONFIDENCE_LEVEL, ClassScores, Interval

_CLASSES_SHOWN_WHOLE = 20
_WORST_SHOWN = 10
_NUMBERS = re.compile(r"\[[-+.\deE,\s]+\]")  # a list of numbers takes one line of the JSON file
_WORDS = {"macro_f1": "macro F1", "ece": "ECE", "ece_calibrated": "ECE calibrated"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measured quality of a single-label classifier on one split.

    Attributes:
        split: Name of the split that was evaluated.
        classes: Names of the classes, in the order of the model's outputs.
        labels: True class indices, ``(rows,)``.
        predicted: Predicted class indices, ``(rows,)``.
        confidence: Calibrated probability of the predicted class, ``(rows,)``.
        accuracy: Share of right answers.
        balanced_accuracy: Mean recall of the classes that have rows.
        macro_f1: Mean F1 of the classes that have rows or are predicted.
        log_loss: Mean negative log-likelihood in nats, at temperature 1.
        log_loss_calibrated: The same, at the temperature.
        ece: Expected calibration error at temperature 1, 15 equal-width bins.
        ece_calibrated: The same, at the temperature.
        temperature: By what the logits are divided before the softmax.
        calibrated_on: Name of the split on which the temperature was fitted; None if it was given.
        per_class: Precision, recall, F1 and support of each class.
        confusion: Rows by true class (first axis) and predicted class, ``(num_classes, num_classes)``.
        reliability: Confidence against accuracy at temperature 1.
        reliability_calibrated: The same, at the temperature.
        num_bootstrap: Resamples behind each interval.
        seed: Seed of the resampling.
    """

    split: str
    classes: tuple[str, ...]
    labels: IntArray
    predicted: IntArray
    confidence: FloatArray
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    log_loss: Interval
    log_loss_calibrated: Interval
    ece: Interval
    ece_calibrated: Interval
    temperature: float
    calibrated_on: str | None
    per_class: tuple[ClassScores, ...]
    confusion: IntArray
    reliability: Reliability
    reliability_calibrated: Reliability
    num_bootstrap: int
    seed: int

    task = "single_label"

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.labels)

    @property
    def scalars(self) -> dict[str, Interval]:
        """The scalar scores by name, the most asked for first."""
        names = (
            "accuracy",
            "balanced_accuracy",
            "macro_f1",
            "log_loss",
            "log_loss_calibrated",
            "ece",
            "ece_calibrated",
        )
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the single rows, ready for JSON (undefined scores are None)."""
        return {
            "task": self.task,
            "split": self.split,
            "rows": len(self),
            **{name: interval.to_dict() for name, interval in self.scalars.items()},
            "temperature": self.temperature,
            "calibrated_on": self.calibrated_on,
            "interval": {"level": CONFIDENCE_LEVEL, "num_bootstrap": self.num_bootstrap, "seed": self.seed},
            "classes": list(self.classes),
            "per_class": [scores.to_dict() for scores in self.per_class],
            "confusion": self.confusion.tolist(),
            "reliability": self.reliability.to_dict(),
            "reliability_calibrated": self.reliability_calibrated.to_dict(),
        }

    def lines(self) -> list[str]:
        """Words the evaluation for people, one string a line."""
        rows = f"{len(self):,} row" + ("" if len(self) == 1 else "s")
        lines = [f"{self.split}: {rows}, {len(self.classes)} classes", ""]
        scored = [(_WORDS.get(name, name.replace("_", " ")), str(it)) for name, it in self.scalars.items()]
        lines += table_lines(("score", f"value [{CONFIDENCE_LEVEL:.0%} interval]"), scored)
        origin = f"fitted on {self.calibrated_on}" if self.calibrated_on else "as the model carries it"
        lines += ["", f"temperature {self.temperature:.4g} ({origin}); log loss in nats", ""]
        lines += self._class_lines()
        confused = self._confused()
        if confused:
            lines += ["", "most confused (true -> predicted)"]
            lines += [f"  {count:>5,} x  {true} -> {wrong}" for count, true, wrong in confused]
        missing = [scores.name for scores in self.per_class if not scores.support]
        if missing:
            named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            lines += ["", f"{len(missing)} of {len(self.classes)} classes have no row in this split: {named}"]
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes the evaluation's files, each of them whole or not at all.

        ``metrics.json`` holds ``to_dict()``; ``confusion_matrix.png`` and ``reliability.png`` show it;
        ``predictions.parquet`` has one line for each row of the split: row, label, predicted, confidence.
        No text of the data is written.

        Args:
            directory: The folder; it is made if it does not exist.

        Returns:
            The folder.

        Raises:
            OutputError: A file cannot be written.
        """
        from tfapp.evaluation import figures  # matplotlib loads only where pictures are drawn

        folder = Path(directory)
        metrics = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        metrics = _NUMBERS.sub(lambda found: " ".join(found.group().split()), metrics)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(
                folder / "metrics.json", lambda path: path.write_text(metrics + "\n", encoding="utf-8")
            )
            write_whole(folder / "predictions.parquet", self._write_predictions)
            write_whole(folder / "confusion_matrix.png", lambda path: figures.draw_confusion(self, path))
            write_whole(folder / "reliability.png", lambda path: figures.draw_reliability(self, path))
        except OSError as error:
            raise OutputError(f"{folder}: the evaluation cannot be written there ({error})") from error
        return folder

    def _write_predictions(self, path: Path) -> None:
        import pandas as pd

        names = pd.Index(self.classes)
        frame = pd.DataFrame(
            {
                "row": np.arange(len(self), dtype=np.int64),
                "label": pd.Categorical.from_codes(self.labels, names),
                "predicted": pd.Categorical.from_codes(self.predicted, names),
                "confidence": self.confidence.astype(np.float32),
            }
        )
        frame.to_parquet(path, index=False)

    def _class_lines(self) -> list[str]:
        shown = list(self.per_class)
        heading = "class"
        if len(shown) > _CLASSES_SHOWN_WHOLE:
            present = [scores for scores in shown if scores.f1 is not None]
            shown = sorted(present, key=lambda scores: scores.f1.value if scores.f1 else 0.0)[:_WORST_SHOWN]
            heading = f"class ({len(shown)} lowest F1 of {len(self.classes)})"
        body = [
            (
                item.name,
                _fraction(item.precision),
                _fraction(item.recall),
                "-" if item.f1 is None else str(item.f1),
                f"{item.support:,}",
            )
            for item in shown
        ]
        return table_lines(
            (heading, "precision", "recall", f"F1 [{CONFIDENCE_LEVEL:.0%} interval]", "rows"), body
        )

    def _confused(self) -> list[tuple[int, str, str]]:
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:5]
        pairs = [divmod(int(flat), len(self.classes)) for flat in order]
        return [(int(wrong[i, j]), self.classes[i], self.classes[j]) for i, j in pairs if wrong[i, j]]


def _fraction(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _width(text: str) -> int:
    """Columns that a terminal gives to a text: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def table_lines(header: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> list[str]:
    """Sets rows in columns, the first aligned left, the others right."""
    table = [header, *body]
    widths = [max(_width(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        padding = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [row[0] + padding[0], *(pad + cell for cell, pad in zip(row[1:], padding[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a temporary neighbour of ``path``, then puts it in place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
