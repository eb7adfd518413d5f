"""TensorFlow's profiler over some steps of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import tensorflow as tf

_LOG = logging.getLogger("tfapp")


class Profiler:
    """Watches the steps of a stretch, once.

    Args:
        directory: Where the profile goes, below ``plugins/profile``.
        steps: The first and the last step of the stretch; None watches nothing.
    """

    def __init__(self, directory: Path, steps: tuple[int, int] | None) -> None:
        self._directory, self._steps = directory, steps
        self._running = False

    def before(self, step: int, *, last: int) -> None:
        """Begins before a call of the train function that holds a step of the stretch.

        Args:
            step: The call's first step.
            last: Its last step.
        """
        if self._steps is None or self._running or last < self._steps[0] or step > self._steps[1]:
            return
        try:
            tf.profiler.experimental.start(str(self._directory))
            self._running = True
        except tf.errors.AlreadyExistsError:
            _LOG.warning("the steps %d to %d are not profiled: a profiler is running already", *self._steps)
            self._steps = None

    def after(self, step: int) -> None:
        """Ends after the call that holds the stretch's last step.

        Args:
            step: The call's last step.
        """
        if self._steps is not None and step >= self._steps[1]:
            self.stop()

    def stop(self) -> None:
        """Writes the profile, if one is being taken."""
        if self._running:
            tf.profiler.experimental.stop()
            self._running, self._steps = False, None
