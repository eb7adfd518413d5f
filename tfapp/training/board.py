"""A run's board: what TensorBoard shows of it, and how a resumed run goes on in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.gpus import Gpus
from tfapp.machine import process_memory
from tfapp.training.board_files import FILE_ENDING
from tfapp.training.callbacks import PROBED, RESTORED
from tfapp.training.profiling import Profiler
from tfapp.training.throughput import Pace, WindowLoss

_ALL = ("loss", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Board:
    """What is written for TensorBoard beside the losses and metrics of each epoch.

    Attributes:
        every: Steps between the points of loss, learning rate and speed, 1 or more; rounded up to what Keras
            runs at once.
        histograms: Whether the weights that are trained are written as histograms after each epoch.
        predictions: How many validation rows are shown after each epoch, with what the model says of them.
        hparams: Whether the run's settings are written for the plugin HParams, with its final metrics.
        profile_steps: First and last step, counted from 1 through all phases, that TensorFlow's profiler
            watches; rounded to what Keras runs at once. None profiles nothing.

    Raises:
        ConfigError: When a value is out of range.
    """

    every: int = 50
    histograms: bool = False
    predictions: int = 0
    hparams: bool = True
    profile_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("predictions", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ConfigError(
                    f"tensorboard {name} = {value!r}: it must be a whole number, at least {least}."
                )
        steps = self.profile_steps
        if steps is not None:
            whole = len(steps) == 2 and all(isinstance(step, Integral) for step in steps)
            if not (whole and 1 <= steps[0] <= steps[1]):
                raise ConfigError(
                    f"tensorboard profile_steps = {steps!r}: give the first and the last step, such as "
                    "(100, 110)."
                )


def make_board(setting: Board | Mapping[str, Any] | bool) -> Board | None:
    """Resolves what is written for TensorBoard.

    Args:
        setting: A board, its settings by name, True for the defaults, False for none at all.

    Returns:
        The board, or None.

    Raises:
        ConfigError: When a setting is unknown or out of range.
    """
    if isinstance(setting, Board):
        return setting
    if isinstance(setting, bool):
        return Board() if setting else None
    if not isinstance(setting, Mapping):
        raise ConfigError(f"tensorboard = {setting!r}: give True, False, or settings by name.")
    known = [field.name for field in fields(Board)]
    for name in setting:
        if name not in known:
            raise ConfigError(f"tensorboard has no setting {name!r}; {nearest(name, known)}")
    steps = setting.get("profile_steps")
    return Board(**{**setting, "profile_steps": None if steps is None else tuple(steps)})


class BoardWriters:
    """The event files of a run's board, opened when something is written into them.

    Args:
        directory: The board's folder: the run's own part, with ``train`` and ``validation`` in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writers: dict[str, Any] = {}

    def at(self, part: str, step: int) -> Any:
        """Directs summaries into a part of the board.

        Args:
            part: ``"train"``, ``"validation"``, or ``""`` for the run's own.
            step: Step of the run that they are of.

        Returns:
            The context for `tf.summary`'s functions.
        """
        if part not in self._writers:
            self._writers[part] = tf.summary.create_file_writer(
                str(self.directory / part), filename_suffix=FILE_ENDING
            )
        return self._writers[part].as_default(step=step)

    def flush(self) -> None:
        """Hands everything to the system."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class BoardKeeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes a phase's part of the board; stands before what writes the epoch's checkpoint.

    So a run that is killed in between writes the epoch again, when what it has written is cut off.

    Args:
        board: What is written.
        writers: Where.
        offset: Steps of the run before the phase.
        steps: Steps of an epoch.
        steps_done: Gives the finished steps of the epoch that a resumed run begins within.
        pace: The speed of the steps.
        window: The loss of the last steps.
        rate: Gives the learning rate of the last step.
        weights: Variables that the phase trains.
        page: Called after each epoch to write predictions, or None.
    """

    def __init__(
        self,
        board: Board,
        writers: BoardWriters,
        *,
        offset: int,
        steps: int,
        steps_done: Callable[[], int],
        pace: Pace,
        window: WindowLoss,
        rate: Callable[[], float],
        weights: Sequence[Any],
        page: Callable[[], None] | None,
    ) -> None:
        super().__init__()
        self._board, self._writers, self._steps, self._steps_done = board, writers, steps, steps_done
        self._pace, self._window, self._rate = pace, window, rate
        self._weights, self._page = weights, page
        self._profiler = Profiler(writers.directory, board.profile_steps)
        self._gpus = Gpus()
        self._offset = self._epoch = self._begun = self._done = self._written = offset
        self._reading = pace.read()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Goes on where the epoch stands."""
        first = self._steps_done()
        self._epoch = self._offset + epoch * self._steps
        self._begun = self._done = self._epoch + first
        self._window.begin_epoch(first)
        self._written = max(self._written, self._done)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins to profile when it is time."""
        self._profiler.before(
            self._begun + batch + 1, last=self._begun + batch + self.model.steps_per_execution
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes a point when it is time."""
        self._done = self._begun + batch + 1
        self._profiler.after(self._done)
        if self._done // self._board.every > self._written // self._board.every:
            self._write_point(logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's losses and metrics, and what else was asked for."""
        numbers = {name: float(value) for name, value in (logs or {}).items() if name != RESTORED}
        if self._written < self._done:
            self._write_point(numbers)
        for part, prefix in (("train", ""), ("validation", "val_")):
            found = {name: numbers[prefix + name] for name in _ALL if prefix + name in numbers}
            if part == "validation":
                found |= {name.removeprefix(prefix): numbers[name] for name in PROBED if name in numbers}
            if found:
                with self._writers.at(part, self._done):
                    for name, value in found.items():
                        tf.summary.scalar(name, value)
        if self._board.histograms:
            with self._writers.at("train", self._done):
                for variable in self._weights:
                    tf.summary.histogram(f"weights/{variable.path}", variable.value)
        if self._page is not None:
            with self._writers.at("validation", self._done):
                self._page()
        self._writers.flush()

    def close(self) -> None:
        """Ends a profile that is still running."""
        self._profiler.stop()

    def _write_point(self, numbers: Mapping[str, Any]) -> None:
        reading = self._pace.read()
        rates, self._reading = reading.since(self._reading), reading
        points: dict[str, float | None] = {"step/learning_rate": self._rate()}
        if "loss" in numbers:
            points["step/loss"] = self._window.take(float(numbers["loss"]), self._done - self._epoch)
        if rates is not None:
            points["speed/examples_per_second"] = rates.examples_per_second
            points["speed/tokens_per_second"] = rates.tokens_per_second
            points["speed/input_wait"] = rates.input_wait
        points["memory/process_bytes"] = float(process_memory())
        for number, gpu in enumerate(self._gpus.read()):
            points[f"gpu-{number}/memory_bytes"] = float(gpu.memory_used)
            points[f"gpu-{number}/utilization"] = gpu.utilization
        with self._writers.at("train", self._done):
            for name, value in points.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._writers.flush()
        self._written = self._done
