"""Checkpoints that hold everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tfapp.errors import OutputError, WeightsError

_LOG = logging.getLogger("tfapp")
_FILE = "checkpoint.npz"
_BEFORE = "checkpoint-before.npz"
_ARRAYS = ("variables", "optimizer", "metrics", "best")


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        key: What the run depends on (data, settings); a checkpoint with another key is of another run.
        phase: Number of the phase, from 0.
        epochs_done: Finished epochs of that phase.
        steps_done: Finished steps of the epoch after them.
        seconds: What these steps took.
        history: One row a finished epoch.
        best_value: Best monitored value so far, or None.
        phase_best: Best monitored value of the phase so far, or None.
        stale_epochs: Epochs since then.
        stopped: Whether the phase was ended early.
        num_microbatches: In how many parts a batch is computed since memory ran out; 1 where it has not.
    """

    key: str
    phase: int = 0
    epochs_done: int = 0
    steps_done: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_value: float | None = None
    phase_best: float | None = None
    stale_epochs: int = 0
    stopped: bool = False
    num_microbatches: int = 1

    def __str__(self) -> str:
        """The place in words."""
        within = f", step {self.steps_done} of epoch {self.epochs_done + 1}" if self.steps_done else ""
        return f"phase {self.phase + 1}, epoch {self.epochs_done}{within}"


@dataclass
class Checkpoint:
    """A run's progress and its numbers.

    Attributes:
        progress: Where the run stands.
        variables: Values of all variables of the model, dropout's random state included.
        optimizer: Values of the optimizer's variables, its step count included.
        best: Values of the model's weights at the best epoch so far; empty when that is not kept.
        metrics: Values of the variables of loss and metrics within an epoch; empty between epochs.
    """

    progress: Progress
    variables: list[npt.NDArray[Any]]
    optimizer: list[npt.NDArray[Any]]
    best: list[npt.NDArray[Any]]
    metrics: list[npt.NDArray[Any]] = field(default_factory=list)

    def save(self, directory: Path) -> None:
        """Writes the checkpoint in one step; the one that it replaces stays beside it.

        Args:
            directory: The folder; made if it is missing.

        Raises:
            OutputError: When it cannot be written.
        """
        staging = directory / f".{_FILE}"  # alone: who trains here holds the folder
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with staging.open("wb") as file:
                self._write(file)
                file.flush()
                os.fsync(file.fileno())
            _keep_before(directory)
            os.replace(staging, directory / _FILE)
        except ValueError as error:
            # An interruption within an entry makes closing the archive fail, and that error hides it.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        except OSError as error:
            with suppress(OSError):
                staging.unlink()
            raise OutputError(
                f"cannot write a checkpoint to {directory}: {error.strerror}; the one before is kept. Make "
                "room or make it writable, and run again: training goes on from there."
            ) from error

    def to_bytes(self) -> bytes:
        """The checkpoint as `from_bytes` reads it."""
        buffer = io.BytesIO()
        self._write(buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint:
        """Reads what `to_bytes` gave."""
        return cls._parse(io.BytesIO(content))

    def _write(self, file: BinaryIO) -> None:
        arrays: dict[str, Any] = {
            "progress": np.frombuffer(json.dumps(vars(self.progress)).encode(), np.uint8)
        }
        for name in _ARRAYS:
            arrays |= {f"{name}/{index}": value for index, value in enumerate(getattr(self, name))}
        np.savez(file, **arrays)

    @classmethod
    def load(cls, directory: Path, key: str) -> Checkpoint | None:
        """Reads the newest checkpoint, or the one before where that is damaged.

        Args:
            directory: The folder.
            key: The key of the run that wants to go on.

        Returns:
            The checkpoint; None when there is none that can be read, or it belongs to another run.
        """
        for path in (directory / _FILE, directory / _BEFORE):
            checkpoint = cls._read(path)
            if checkpoint is None:
                continue
            if checkpoint.progress.key != key:
                _LOG.info("%s is of another run (data, model or settings); starting anew", directory)
                return None
            if path.name == _BEFORE:
                _LOG.warning(
                    "the newest checkpoint in %s cannot be read; going on from the one before", directory
                )
            return checkpoint
        return None

    @classmethod
    def _read(cls, path: Path) -> Checkpoint | None:
        try:
            with path.open("rb") as file:
                return cls._parse(file)
        except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile):
            return None

    @classmethod
    def _parse(cls, file: BinaryIO) -> Checkpoint:
        with np.load(file, allow_pickle=False) as arrays:
            progress = Progress(**json.loads(arrays["progress"].tobytes()))
            parts = {
                name: [arrays[f"{name}/{i}"] for i in range(_count(arrays.files, name))] for name in _ARRAYS
            }
        return cls(progress, **parts)


class CheckpointWriter:
    """Writes checkpoints in a thread of its own while training goes on.

    Args:
        directory: The folder of the checkpoints.
        writes: Whether this process writes them; of several workers only the chief does.

    Attributes:
        seconds: What the last checkpoint cost: the time until training went on, and the processor time of the
            thread that wrote it. 0 before the first.
    """

    def __init__(self, directory: Path, *, writes: bool = True) -> None:
        self.directory = directory
        self.writes = writes
        self.seconds = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tfapp-checkpoint")
        self._writing: Future[float] | None = None

    def save(
        self,
        progress: Progress,
        *,
        variables: Sequence[Any],
        optimizer: Sequence[Any],
        metrics: Sequence[Any],
        best: Sequence[npt.NDArray[Any]],
    ) -> None:
        """Copies values and lets them be written; waits for the checkpoint before to be on disk.

        Args:
            progress: Where the run stands.
            variables: All variables of the model.
            optimizer: The optimizer's.
            metrics: Those of loss and metrics.
            best: Values at the best epoch, which nobody changes any more.

        Raises:
            OutputError: When the checkpoint before could not be written.
        """
        started = time.perf_counter()
        self.wait()
        sums = read_values(metrics)  # of all workers, so all must read them
        if not self.writes:
            return
        checkpoint = Checkpoint(
            copy.deepcopy(progress),
            variables=read_values(variables),
            optimizer=read_values(optimizer),
            best=list(best),
            metrics=sums,
        )
        blocked = time.perf_counter() - started
        self._writing = self._pool.submit(self._write, checkpoint, blocked)

    def _write(self, checkpoint: Checkpoint, blocked: float) -> float:
        started = time.thread_time()
        checkpoint.save(self.directory)
        return blocked + time.thread_time() - started

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
            OutputError: When it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            self.seconds = writing.result()

    def close(self) -> None:
        """Ends the thread, after what it is writing."""
        self._pool.shutdown()


def load_checkpoint(model: Any, run_dir: str | Path) -> Progress:
    """Puts the newest checkpoint of a run into a model; where its weights are not finite, the one before.

    Args:
        model: Built as the run's was; changed in place.
        run_dir: The run's folder, as `train` got it; ``runs/<name>/transfer`` or ``harden`` of a workflow.

    Returns:
        Where the run stood.

    Raises:
        WeightsError: When there is no such checkpoint, or it is of another model.
    """
    directory, variables = Path(run_dir) / "checkpoints", model.variables
    for path in (directory / _FILE, directory / _BEFORE):
        checkpoint = Checkpoint._read(path)
        values = [] if checkpoint is None else checkpoint.variables[: len(variables)]
        if checkpoint is None or not all(np.isfinite(value).all() for value in values):
            continue
        if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
            raise WeightsError(
                f"{path} is of another model: build it with the backbone and classes of the run."
            )
        assign_values(variables, values)
        return checkpoint.progress
    raise WeightsError(
        f"{directory} has no checkpoint with finite weights: none was written, or a finished run removed it."
    )


def _keep_before(directory: Path) -> None:
    """Gives the newest checkpoint a second name, so that at no moment there is none."""
    newest, linked = directory / _FILE, directory / f".{_BEFORE}"
    if not newest.exists():
        return
    linked.unlink(missing_ok=True)
    try:
        os.link(newest, linked)
    except OSError:  # a file system without links
        os.replace(newest, directory / _BEFORE)
        return
    os.replace(linked, directory / _BEFORE)


def _count(names: Sequence[str], prefix: str) -> int:
    return sum(name.startswith(prefix + "/") for name in names)


def read_values(variables: Sequence[Any]) -> list[npt.NDArray[Any]]:
    """Copies the values of Keras variables."""
    return [np.array(variable.numpy()) for variable in variables]


def assign_values(variables: Sequence[Any], values: Sequence[npt.NDArray[Any]]) -> None:
    """Sets Keras variables to values of the same shapes, in the same order."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
