"""How fast a run trains, and which share of the time it waits for its input."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras

from tfapp.training.step_meter import StepMeter


@dataclass(frozen=True)
class Rates:
    """The speed of a stretch of training.

    Attributes:
        examples_per_second: Rows a second of the train steps; validation and checkpoints are left out.
        tokens_per_second: Real tokens a second, padding left out; None where batches hold no tokens.
        input_wait: Share of the train steps' time in which they stood still for want of a batch, 0 to 1; None
            where it is not measured, see `StepMeter.read`.
    """

    examples_per_second: float
    tokens_per_second: float | None
    input_wait: float | None


@dataclass(frozen=True)
class Reading:
    """What was counted until a moment.

    Attributes:
        seconds: Spent in train steps.
        waited: Of these, waiting for batches; None where that is not measured.
        rows: Rows learned.
        tokens: Real tokens learned.
    """

    seconds: float = 0.0
    waited: float | None = 0.0
    rows: float = 0.0
    tokens: float = 0.0

    def since(self, earlier: Reading) -> Rates | None:
        """The rates from an earlier reading to this one; None where no time lies in between."""
        seconds = self.seconds - earlier.seconds
        if seconds <= 0.0:
            return None
        tokens = (self.tokens - earlier.tokens) / seconds
        wait = None
        if self.waited is not None and earlier.waited is not None:
            wait = min(max((self.waited - earlier.waited) / seconds, 0.0), 1.0)
        return Rates((self.rows - earlier.rows) / seconds, tokens or None, wait)


class Pace(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes the time of a phase's train steps; stands before the callbacks that read it.

    To the numbers of each epoch it adds ``examples_per_second`` and ``input_wait``. The phase's first call of
    the train function, which traces and compiles it, counts only where its epoch has no other.

    Args:
        meter: What the steps count.
    """

    def __init__(self, meter: StepMeter) -> None:
        super().__init__()
        self._meter = meter
        self._began = self._inside = self._between = 0.0
        self._epoch, self._traced = Reading(), Reading()
        self._calls = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes where the epoch begins."""
        self._epoch = self.read()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes how long Keras did other things than training."""
        ended = self._meter.ended_at()
        if ended:
            self._between += max(time.time() - ended, 0.0)  # the clock that the steps go by
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds up the time of the steps."""
        self._inside += time.perf_counter() - self._began
        self._calls += 1
        if self._calls == 1:
            self._traced = self.read()
        elif self._calls == 2 and not self._epoch.seconds:
            self._epoch = self._traced

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the epoch's rates to its numbers."""
        rates = self.read().since(self._epoch)
        if rates is not None and logs is not None:
            logs["examples_per_second"] = rates.examples_per_second
            if rates.input_wait is not None:
                logs["input_wait"] = rates.input_wait

    def read(self) -> Reading:
        """What was counted until the end of the last steps."""
        waited, rows, tokens = self._meter.read()
        return Reading(self._inside, None if waited is None else waited - self._between, rows, tokens)


class WindowLoss:
    """The mean loss of the last steps, from the mean since the epoch's beginning that Keras reports.

    Args:
        batch_size: Rows a step.
        rows: Rows of an epoch.
        resumed: The mean of the epoch that a resumed run begins within.
    """

    def __init__(self, *, batch_size: int, rows: int, resumed: float | None = None) -> None:
        self._batch_size, self._rows, self._resumed = batch_size, rows, resumed
        self._mean: float | None = 0.0
        self._counted = 0

    def begin_epoch(self, steps_done: int) -> None:
        """Begins an epoch.

        Args:
            steps_done: Steps that the epoch's mean holds already, of a run that goes on within it.
        """
        self._mean, self._counted = (self._resumed if steps_done else 0.0), self._rows_of(steps_done)

    def take(self, mean: float, steps_done: int) -> float | None:
        """Ends a window and begins the next.

        Args:
            mean: Mean loss of the epoch's steps so far.
            steps_done: Their number.

        Returns:
            The mean loss of the window's steps; None where that cannot be told.
        """
        before, counted = self._mean, self._counted
        self._mean, self._counted = mean, self._rows_of(steps_done)
        if before is None or self._counted <= counted:
            return None
        return (mean * self._counted - before * counted) / (self._counted - counted)

    def _rows_of(self, steps: int) -> int:
        return min(steps * self._batch_size, self._rows)
