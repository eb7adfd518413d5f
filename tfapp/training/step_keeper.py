"""What happens after a step: looking whether the loss is finite, and a checkpoint when it is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import numpy.typing as npt

from tfapp.training.checkpoints import CheckpointWriter, Progress, assign_values
from tfapp.training.stopping import PutOff
from tfapp.training.workers import Workers

_SHARE = 0.02
"""Largest share of the time that goes into checkpoints whose number is not given."""
_LEAST_SECONDS = 30.0


class StopRun(Exception):  # noqa: N818 - a stop, not an error
    """Ends training after the checkpoint that a signal asked for."""


class EpochStop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a run between epochs when a signal says so; stands behind what writes the epoch's checkpoint.

    Where an epoch is one call of Keras, no step is looked at before it ends.

    Args:
        writer: Writes the checkpoints.
        waiting: The signal to end.
        workers: The processes that train together; what one of them is told, all do.
    """

    def __init__(self, writer: CheckpointWriter, waiting: PutOff, workers: Workers) -> None:
        super().__init__()
        self.writer, self.waiting, self.workers = writer, waiting, workers

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks whether one of the workers was told to end."""
        if self.workers.who(self.waiting.number is not None):
            self.writer.wait()
            raise StopRun


class AgreedStop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a phase in all workers where a callback has ended it in one; stands behind all that may.

    Args:
        workers: The processes that train together.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self.workers = workers

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Asks the others."""
        self.model.stop_training = bool(self.workers.who(self.model.stop_training))


class StepKeeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Watches a run's steps, and keeps its record within an epoch.

    Args:
        progress: Where the run stands; updated in place.
        steps: Steps of an epoch.
        every: Steps between checkpoints; None for as many as cost 2 % of the time, and half a minute between
            them at least.
        metrics: Variables of the loss and the metrics that an epoch sums up in.
        resumed: Their values where the run was left within an epoch; empty elsewhere.
        writer: Writes the checkpoints; None where nothing is kept.
        save: Hands a checkpoint to the writer.
        waiting: The signal to end.
        workers: The processes that train together; several stop and write after the same step.
        diverged: Called with the number of the optimizer's first step whose loss is not finite; raises.
    """

    def __init__(
        self,
        *,
        progress: Progress,
        steps: int,
        every: int | None,
        metrics: Sequence[Any],
        resumed: Sequence[npt.NDArray[Any]],
        writer: CheckpointWriter | None,
        save: Callable[[], None],
        waiting: PutOff,
        workers: Workers,
        diverged: Callable[[int], NoReturn],
    ) -> None:
        super().__init__()
        self.progress, self.steps, self.every = progress, steps, every
        self.metrics, self.resumed = metrics, list(resumed)
        self.writer, self.save, self.waiting, self.diverged = writer, save, waiting, diverged
        self.workers = workers
        self._first = self._saved_step = 0
        self._began = self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Goes on with the sums of an epoch that was left within."""
        self.model.in_step = True
        self._first = self._saved_step = self.progress.steps_done
        self._began = time.monotonic() - self.progress.seconds
        if self.resumed:
            assign_values(self.metrics, self.resumed)
            self.resumed = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss; writes a checkpoint when it is time, or a signal says so."""
        if self.model.first_not_finite is not None:
            self.diverged(self.model.first_not_finite)
        done = self._first + batch + 1
        if self.writer is None or done == self.steps:  # the epoch's own checkpoint follows
            return
        now = time.monotonic()
        self.progress.steps_done = done
        self.progress.seconds = now - self._began
        stop, due = self.waiting.number is not None, self._due(now)
        if self.workers.several:
            # What one of them wants, all have heard when the next step is done.
            wanted = self.model.requests.heard()
            self.model.requests.make(stop=stop, save=due and self.workers.chief)
            stop, due = wanted
        if not (stop or due):
            return
        self.save()
        self._saved_step, self._saved_at = self.progress.steps_done, now
        if stop:
            self.writer.wait()
            raise StopRun
        if self.workers.several:
            self.model.requests.make(stop=False, save=False)

    def _due(self, now: float) -> bool:
        if self.every is not None:
            return self.progress.steps_done - self._saved_step >= self.every
        assert self.writer is not None
        return now - self._saved_at >= max(_LEAST_SECONDS, self.writer.seconds / _SHARE)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Notes that what follows is no step."""
        self.model.in_step = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Leaves the epoch's own checkpoint to the keeper of epochs."""
        self.model.in_step = False
        self.progress.steps_done, self.progress.seconds = 0, 0.0
        self._saved_step, self._saved_at = 0, time.monotonic()
