"""Trainings that take turns, so that what slows the machine down for a while slows all of them down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import keras

from tfapp.errors import TfappError

_Key = TypeVar("_Key", bound=Hashable)


class _Ended(BaseException):
    """Unwinds a training that is not to go on; no handler of errors keeps it."""


class _Training(keras.callbacks.Callback):  # type: ignore[misc]
    """A training in a thread of its own, which waits at the end of a turn until it is its turn again.

    Args:
        train: Trains for a very long time with the callback that it is given.
    """

    def __init__(self, train: Callable[[keras.callbacks.Callback], None]) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._allowed, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._left, self._ended = 0, False
        self._began = self._seconds = 0.0
        self._train = train
        self._thread = threading.Thread(target=self._run, daemon=True)

    def turn(self, passes: int) -> float:
        """Trains for some passes over the data, and returns how many seconds the last one took.

        Args:
            passes: How many, 1 or more.

        Raises:
            TfappError: When the training failed.
        """
        self._left = passes
        if not self._thread.ident:
            self._thread.start()
        self._allowed.release()
        self._done.acquire()
        if self.error is not None:
            raise self.error
        return self._seconds

    def end(self) -> None:
        """Ends the training after the step that it is at, and waits for it."""
        self._ended = True
        self._allowed.release()
        if self._thread.ident:
            self._thread.join()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes when the pass began."""
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends the training if it is to end."""
        if self._ended:
            raise _Ended

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes what the pass took, and waits for the next turn."""
        self.model.optimizer.iterations.numpy()  # a GPU may still be at the last step
        self._seconds = time.perf_counter() - self._began
        self._left -= 1
        if not self._left:
            self._done.release()
            self._wait()

    def _wait(self) -> None:
        self._allowed.acquire()
        if self._ended:
            raise _Ended

    def _run(self) -> None:
        try:
            self._wait()
            self._train(self)
            raise RuntimeError("a training that takes turns came to its own end")
        except _Ended:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._done.release()


def seconds_by_turns(
    trainings: Mapping[_Key, Callable[[keras.callbacks.Callback], None]],
    *,
    until: float,
    passes: int = 2,
    least_rounds: int = 3,
    most_rounds: int = 25,
) -> tuple[dict[_Key, list[float]], dict[_Key, TfappError]]:
    """Lets trainings take turns, and tells what their passes over the data took.

    Of the passes of a turn the last one counts: the first one finds batches that were made ready while the
    training waited. A first round of one pass, in which functions are traced, does not count.

    Args:
        trainings: Functions that train for a very long time with the callback that they are given.
        until: No round is begun after this time of `time.monotonic`, once there are enough.
        passes: Passes over the data in a turn, 1 or more.
        least_rounds: Rounds that are measured in any case, 1 or more.
        most_rounds: Most rounds.

    Returns:
        The seconds of each round by training, and the errors of those that failed.
    """
    going = {key: _Training(train) for key, train in trainings.items()}
    everyone = list(going.values())
    seconds: dict[_Key, list[float]] = {key: [] for key in going}
    failed: dict[_Key, TfappError] = {}

    def turn(key: _Key, count: int) -> float | None:
        try:
            return going[key].turn(count)
        except TfappError as error:
            failed[key] = error
            del going[key], seconds[key]
            return None

    try:
        for key in list(going):
            turn(key, 1)
        for number in range(most_rounds):
            if not going or (number >= least_rounds and time.monotonic() >= until):
                break
            order = list(going)
            for key in order[number % len(order) :] + order[: number % len(order)]:
                took = turn(key, passes)
                if took is not None:
                    seconds[key].append(took)
    finally:
        for training in everyone:
            training.end()
    return seconds, failed
