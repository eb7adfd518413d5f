"""``progress.json``: where a run stands at the moment, for those who watch it from another process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from tfapp.gpus import Gpus
from tfapp.machine import process_memory
from tfapp.training.throughput import Pace, Rates, WindowLoss

FILE = "progress.json"
_SECONDS = 1.0
_RECENT = 60


class LiveProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes the file about every second; steps that Keras runs at once count as one moment.

    Args:
        directory: The run's folder.
        place: What does not change within the phase: ``phase``, ``phases``, ``train``, ``epochs``, ``steps``
            of an epoch.
        steps_done: Gives the finished steps of the epoch that a resumed run begins within.
        pace: The speed of the steps.
        window: The loss of the last steps.
        rate: Gives the learning rate of the last step.
    """

    def __init__(
        self,
        directory: Path,
        *,
        place: Mapping[str, Any],
        steps_done: Callable[[], int],
        pace: Pace,
        window: WindowLoss,
        rate: Callable[[], float],
    ) -> None:
        super().__init__()
        self._directory, self._place, self._steps_done = directory, dict(place), steps_done
        self._pace, self._window, self._rate = pace, window, rate
        self._gpus = Gpus()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._reading = pace.read()
        self._rates: Rates | None = None
        self._epoch = self._first = self._step = 0
        self._written = 0.0
        self._timed: tuple[float, int] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Goes on where the epoch stands."""
        self._epoch, self._first = epoch, self._steps_done()
        self._step = self._first
        self._window.begin_epoch(self._first)
        self._write("training", {})

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes where the run stands, when the last time is a while ago."""
        self._step = self._first + batch + 1
        if self._timed is None:  # the first steps compile
            self._timed = time.monotonic(), self._steps_of_phase()
        if time.monotonic() - self._written >= _SECONDS:
            self._write("training", logs or {})

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Says that the epoch is being validated."""
        self._write("validating", {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Says that the epoch has ended."""
        self._write("training", logs or {})

    def _steps_of_phase(self) -> int:
        return self._epoch * int(self._place["steps"]) + self._step

    def _write(self, state: str, logs: Mapping[str, Any]) -> None:
        reading = self._pace.read()
        self._rates, self._reading = reading.since(self._reading) or self._rates, reading
        if "loss" in logs:
            loss = self._window.take(float(logs["loss"]), self._step)
            self._recent += [] if loss is None else [loss]
        write_progress(
            self._directory,
            {
                "state": state,
                **self._place,
                "epoch": self._epoch + 1,
                "step": self._step,
                "numbers": {name: float(value) for name, value in logs.items()},
                "recent_losses": list(self._recent),
                "learning_rate": self._rate() if self._step else None,
                "rates": None if self._rates is None else asdict(self._rates),
                "seconds_left": self._seconds_left(),
                "memory_bytes": process_memory(),
                "gpus": [asdict(gpu) for gpu in self._gpus.read()],
            },
        )
        self._written = time.monotonic()

    def _seconds_left(self) -> float | None:
        """Of this phase, validation and checkpoints counted in; None as long as it cannot be told."""
        if self._timed is None or self._steps_of_phase() <= self._timed[1]:
            return None
        a_step = (time.monotonic() - self._timed[0]) / (self._steps_of_phase() - self._timed[1])
        total = int(self._place["epochs"]) * int(self._place["steps"])
        return a_step * (total - self._steps_of_phase())


@contextlib.contextmanager
def progress_told(directory: Path | None) -> Iterator[None]:
    """Tells how the training in the block has ended.

    Args:
        directory: The run's folder; None tells nobody.
    """
    if directory is None:
        yield
        return
    write_progress(directory, {"state": "starting"})
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        ended = {"state": "stopped"} if stopped else {"state": "failed", "error": str(error) or repr(error)}
        write_progress(directory, {**_last(directory), **ended})
        raise
    write_progress(directory, {**_last(directory), "state": "finished"})


def write_progress(directory: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file at once; a disk that is full does not end a run that only wanted to tell of itself.

    Args:
        directory: The run's folder.
        content: JSON values.
    """
    staging = directory / f".{FILE}.{os.getpid()}"
    told = {**content, "updated": time.time(), "process": os.getpid(), "host": socket.gethostname()}
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        staging.write_text(json.dumps(told), encoding="utf-8")
        os.replace(staging, directory / FILE)


def _last(directory: Path) -> dict[str, Any]:
    try:
        content = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
