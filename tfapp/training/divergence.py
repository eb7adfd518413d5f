"""What to say of a loss that is no longer finite: where, on which rows, why, and what is left."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfapp.data.bucketing import rows_of_step
from tfapp.errors import TrainingError
from tfapp.training.features import PhaseRows
from tfapp.training.run_state import Run
from tfapp.training.settings import Phase

_NAMED = 8


def divergence(
    run: Run, phase: Phase, given: PhaseRows, *, epoch_step: tuple[int, int], rate: float, seed: int
) -> TrainingError:
    """Words the error of a loss that is not finite.

    Args:
        run: The run.
        phase: The phase that it is in.
        given: What the phase trains on.
        epoch_step: Numbers of the epoch in the phase, and of the step in the epoch, from 0.
        rate: Learning rate of the step.
        seed: The phase's seed.

    Returns:
        The error, with the step, its rows, the likely cause and the last checkpoint.
    """
    epoch, step = epoch_step
    if run.streamed is None:
        on, finite = _rows(run, given, epoch_step, seed)
    else:
        on, finite = f"a batch from {run.streamed.shards.directory}", True
    message = (
        f"the loss is no longer finite in phase {run.progress.phase + 1} ({phase.title}), epoch {epoch + 1}, "
        f"step {step + 1}, at learning rate {rate:g}, on {on}. "
    )
    if not finite:
        message += (
            f"The likely cause: features of these rows are not finite; remove {run.features} and look at the "
            "backbone's weights."
        )
    elif epoch == step == run.progress.phase == 0:
        message += "The likely cause: the weights that the model began with, as it was the first step."
    else:
        clip = ", or set clip_norm = 1" if run.settings.clip_norm is None else ""
        message += (
            f"The likely cause: a learning rate that is too high; lower learning_rate, raise warmup_fraction "
            f"(now {run.settings.warmup_fraction:g}){clip}."
        )
    if run.keep and run.checkpoints.is_dir():
        message += (
            f" The last checkpoint before it is kept: load_checkpoint(model, {str(run.directory)!r}) of "
            "tfapp.training puts it into a model."
        )
    return TrainingError(message)


def _rows(run: Run, given: PhaseRows, epoch_step: tuple[int, int], seed: int) -> tuple[str, bool]:
    """Names the rows of a step, and tells whether all that is known of them is finite."""
    epoch, step = epoch_step
    rows = given.rows["train"]
    indices = rows_of_step(
        rows,
        run.labels("train"),
        batch_size=run.settings.batch_size,
        seed=seed,
        epoch=epoch,
        step=step,
        sampling=run.settings.sampling,
        views=given.views,
        full=run.fixed_shapes,
    )
    gathered = rows.gather(tf.constant(indices))
    finite = all(
        np.isfinite(values.numpy()).all() for values in gathered.values() if values.dtype.is_floating
    )
    texts = run.encoded["train"].texts
    named = [_name(run, int(row)) for row in (indices if texts is None else texts[indices])[:_NAMED]]
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return f"the training rows {', '.join(named)}{more}", finite


def _name(run: Run, row: int) -> str:
    name = getattr(run.encoded["train"], "name", None)
    return str(row) if name is None else f"{row} ({name(row)})"
