"""Going on when memory runs out: back to the last checkpoint, and on with each batch in more parts."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable

import tensorflow as tf

from tfapp.training.checkpoints import Checkpoint, assign_values, read_values
from tfapp.training.memory_errors import OutOfMemoryError
from tfapp.training.microbatches import why_undivided
from tfapp.training.observing import cut_board
from tfapp.training.run_state import Run

_LOG = logging.getLogger("tfapp")


def complete_phase(run: Run, index: int, run_phase: Callable[[Run, int], None]) -> None:
    """Runs a phase, or what is left of it, in as many parts of a batch as memory asks for.

    When memory runs out in a step, the run goes back to its last checkpoint of the phase, or to where the
    phase began, and on from there with twice as many parts of a batch. The number stands in its progress.

    Args:
        run: The run; its model and progress are changed in place.
        index: Number of the phase, from 0.
        run_phase: Runs it once, as the progress says; raises `OutOfMemoryError`.

    Raises:
        OutOfMemoryError: When a batch is in parts of one row already, or cannot be divided.
    """
    began = Checkpoint(copy.deepcopy(run.progress), read_values(run.variables), [], list(run.best))
    while True:
        try:
            run_phase(run, index)
            return
        except OutOfMemoryError as error:
            count = _more_parts(run, error)
        for callback in run.callbacks:
            callback._model = None  # holds the failed attempt's optimizer until the next one begins
        gc.collect()  # the failed attempt's graph and optimizer hold memory until then
        _go_back(run, index, began, count)


def _more_parts(run: Run, error: OutOfMemoryError) -> int:
    """The number of parts to go on with.

    Raises:
        OutOfMemoryError: Where more of them would not help.
    """
    strategy = tf.distribute.get_strategy()
    # Where other processes have not run out, they wait for this one within the failed step.
    alone = not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    rows = rows_at_once(run, 1)
    if not (alone and error.in_step) or run.num_microbatches >= rows:
        raise error
    reason = why_undivided(run.objective, run.model)
    if reason is not None:
        raise OutOfMemoryError(f"{error} It cannot be computed in parts: {reason}.", in_step=True) from error
    return min(2 * run.num_microbatches, rows)


def rows_at_once(run: Run, count: int) -> int:
    """Most rows that a replica computes at once, those of a source task included, in so many parts."""
    replicas: int = tf.distribute.get_strategy().num_replicas_in_sync
    rows = min(run.settings.batch_size, run.rows_an_epoch)
    if run.source is not None:
        rows += max(1, round(run.settings.batch_size * run.source.share))
    return -(-rows // (replicas * count))


def _go_back(run: Run, index: int, began: Checkpoint, count: int) -> None:
    saved = Checkpoint.load(run.checkpoints, run.progress.key) if run.keep else None
    point = began if saved is None or saved.progress.phase != index else saved
    _LOG.warning(
        "memory ran out in phase %d, epoch %d: each batch of %d rows is computed in %d parts from now on, "
        "whose gradients are added up; going on after %s",
        index + 1,
        run.progress.epochs_done + 1,
        run.settings.batch_size,
        count,
        point.progress,
    )
    point.progress.num_microbatches = count
    if run.keep:
        point.save(run.checkpoints)
    run.progress, run.best = copy.deepcopy(point.progress), list(point.best)
    run.resumed = point if point.optimizer else None
    assign_values(run.variables, point.variables)
    for probe in run.probes:
        probe.take_up(run.progress.history)
    cut_board(run)
