"""Checkpoints that hold everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import OutputError

_LOG = logging.getLogger("tfapp")
_FILE = "checkpoint.npz"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        key: What the run depends on (data, settings); a checkpoint with another key is of another run.
        phase: Number of the phase, from 0.
        epochs_done: Finished epochs of that phase.
        history: One row a finished epoch.
        best_value: Best monitored value so far, or None.
        phase_best: Best monitored value of the phase so far, or None.
        stale_epochs: Epochs since then.
        stopped: Whether the phase was ended early.
    """

    key: str
    phase: int = 0
    epochs_done: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: float | None = None
    phase_best: float | None = None
    stale_epochs: int = 0
    stopped: bool = False


@dataclass
class Checkpoint:
    """A run's progress and its numbers.

    Attributes:
        progress: Where the run stands.
        variables: Values of all variables of the model, dropout's random state included.
        optimizer: Values of the optimizer's variables, its step count included.
        best: Values of the model's weights at the best epoch so far; empty when that is not kept.
    """

    progress: Progress
    variables: list[npt.NDArray[Any]]
    optimizer: list[npt.NDArray[Any]]
    best: list[npt.NDArray[Any]]

    def save(self, directory: Path) -> None:
        """Writes the checkpoint, replacing the one before in one step.

        Args:
            directory: The folder; made if it is missing.

        Raises:
            OutputError: When it cannot be written.
        """
        staging = directory / f".{_FILE}.{os.getpid()}"
        arrays: dict[str, Any] = {
            "progress": np.frombuffer(json.dumps(vars(self.progress)).encode(), np.uint8)
        }
        for name in ("variables", "optimizer", "best"):
            arrays |= {f"{name}/{index}": value for index, value in enumerate(getattr(self, name))}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with staging.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staging, directory / _FILE)
        except ValueError as error:
            # An interruption within an entry makes closing the archive fail, and that error hides it.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        except OSError as error:
            with suppress(OSError):
                staging.unlink()
            raise OutputError(f"cannot write a checkpoint to {directory}: {error.strerror}") from error

    @classmethod
    def load(cls, directory: Path, key: str) -> Checkpoint | None:
        """Reads a checkpoint.

        Args:
            directory: The folder.
            key: The key of the run that wants to go on.

        Returns:
            The checkpoint; None when there is none, it is damaged, or it belongs to another run.
        """
        try:
            with np.load(directory / _FILE, allow_pickle=False) as arrays:
                progress = Progress(**json.loads(arrays["progress"].tobytes()))
                if progress.key != key:
                    _LOG.info("%s is of another run (data, model or settings); starting anew", directory)
                    return None
                parts = {
                    name: [arrays[f"{name}/{i}"] for i in range(_count(arrays.files, name))]
                    for name in ("variables", "optimizer", "best")
                }
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None
        return cls(progress, **parts)


def _count(names: Sequence[str], prefix: str) -> int:
    return sum(name.startswith(prefix + "/") for name in names)


def read_values(variables: Sequence[Any]) -> list[npt.NDArray[Any]]:
    """Copies the values of Keras variables."""
    return [np.array(variable.numpy()) for variable in variables]


def assign_values(variables: Sequence[Any], values: Sequence[npt.NDArray[Any]]) -> None:
    """Sets Keras variables to values of the same shapes, in the same order."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
