"""What happens at the end of an epoch: history, best weights, checkpoint, and stopping early."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt

from tfapp.csv_text import csv_text
from tfapp.errors import OutputError
from tfapp.training.checkpoints import Progress, read_values
from tfapp.training.workers import Workers

_LOG = logging.getLogger("tfapp")
COLUMNS = (
    "phase",
    "train",
    "epoch",
    "loss",
    "accuracy",
    "balanced_accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "learning_rate",
    "seconds",
    "examples_per_second",
    "input_wait",
)

PROBED = ("val_single_step_accuracy", "val_multi_step_accuracy")
"""Columns that the history has when a probe measures them."""

RESTORED = "restored"
"""In an epoch's numbers: a probe has put the weights of an earlier epoch back."""


class EpochProbe(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that measures after each epoch, before the run records it.

    What it adds to the epoch's numbers under a name of `PROBED` becomes a column of the history; when it
    stops the training, a resumed run knows of it.

    Attributes:
        phase: Number of the phase that is trained, from 1; the run says it.
        workers: The processes that train together, which all go by what the chief has measured; the run says
            it, too.
    """

    phase = 1
    workers: Workers | None = None

    def take_up(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Learns what an interrupted run has already measured.

        Args:
            history: Rows of the epochs so far.
        """


@dataclass(frozen=True)
class Selection:
    """How the best epoch is chosen.

    Attributes:
        monitor: A column of the history, such as ``"val_accuracy"`` or ``"val_loss"``.
        keep_best: Whether the best epoch's weights are kept, rather than the last's.
        patience: Epochs without improvement on the phase's own best after which it ends; None never ends it
            early.
    """

    monitor: str = "val_accuracy"
    keep_best: bool = True
    patience: int | None = None

    def improved(self, value: float, best: float | None) -> bool:
        """Whether ``value`` is better than the best so far, which may be none, or no number."""
        if best is None or math.isnan(best):
            return True
        return value < best if self.monitor.endswith("loss") else value > best


class EpochKeeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a run's record after each epoch, so that it can go on from there.

    Args:
        progress: Where the run stands; updated in place.
        train: What the phase trains, for the history.
        epochs: Epochs of the phase.
        selection: How the best epoch is chosen.
        weights: The model's weights.
        best: Values of the weights at the best epoch; replaced in place.
        save: Called after each epoch, to write a checkpoint.
        history_path: Where ``history.csv`` goes, or None.
        rate: Gives the learning rate of the last step.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        train: str,
        epochs: int,
        selection: Selection,
        weights: Sequence[Any],
        best: list[npt.NDArray[Any]],
        save: Callable[[], None],
        history_path: Path | None,
        rate: Callable[[], float],
    ) -> None:
        super().__init__()
        self.progress, self.train, self.epochs, self.selection = progress, train, epochs, selection
        self.weights, self.best, self.save, self.history_path = weights, best, save, history_path
        self.rate = rate
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes when the epoch began."""
        self._began = time.perf_counter() - self.progress.seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the epoch, keeps its weights if they are the best, and writes the checkpoint."""
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        rate = self.rate()
        row = {
            "phase": self.progress.phase + 1,
            "train": self.train,
            "epoch": epoch + 1,
            **{name: numbers.get(name) for name in COLUMNS[3:9]},
            **{name: numbers[name] for name in PROBED if name in numbers},
            "learning_rate": rate,
            "seconds": round(time.perf_counter() - self._began, 3),
            **{name: round(numbers[name], 4) for name in COLUMNS[11:] if name in numbers},
        }
        self.progress.history.append(row)
        self.progress.epochs_done = epoch + 1
        value = None if RESTORED in numbers else numbers.get(self.selection.monitor)
        if RESTORED in numbers and self.selection.keep_best:
            self.best[:] = read_values(self.weights)
        if value is not None and self.selection.improved(value, self.progress.best_value):
            self.progress.best_value = value
            if self.selection.keep_best:
                self.best[:] = read_values(self.weights)
        if value is not None and self.selection.improved(value, self.progress.phase_best):
            self.progress.phase_best, self.progress.stale_epochs = value, 0
        else:
            self.progress.stale_epochs += 1
        patience = self.selection.patience
        if value is not None and patience is not None and self.progress.stale_epochs >= patience:
            self.model.stop_training = True
        self.progress.stopped = bool(self.model.stop_training)
        if self.history_path is not None:
            write_history(self.history_path, self.progress.history)
        self.save()
        shown = ", ".join(
            f"{name} {row[name]:.4f}" for name in (*COLUMNS[3:9], *PROBED) if isinstance(row.get(name), float)
        )
        _LOG.info(
            "phase %s (%s), epoch %d of %d: %s, %.1f s",
            row["phase"],
            self.train,
            epoch + 1,
            self.epochs,
            shown,
            row["seconds"],
        )


def write_history(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Writes one line an epoch as CSV, replacing the file in one step.

    Args:
        path: The file.
        history: Rows with the keys of `COLUMNS`, some of them with those of `PROBED`.

    Raises:
        OutputError: When it cannot be written.
    """
    probed = [name for name in PROBED if any(name in row for row in history)]
    columns = (*COLUMNS, *probed)
    text = csv_text(columns, [[row.get(name) for name in columns] for row in history])
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(text, encoding="utf-8")
        os.replace(staging, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
