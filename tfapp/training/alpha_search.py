"""Training with several weights of the source's loss, of which the best is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras

from tfapp.errors import ConfigError, TrainingError
from tfapp.objectives.joint import Joint
from tfapp.training.callbacks import Selection, write_history
from tfapp.training.checkpoints import Progress, assign_values, read_values
from tfapp.training.run import complete_run
from tfapp.training.run_state import Run

_LOG = logging.getLogger("tfapp")


@dataclass(frozen=True)
class TriedAlpha:
    """One weight of the source's loss that was tried.

    Attributes:
        alpha: The weight.
        score: The monitored score on the target's validation rows.
    """

    alpha: float
    score: float


def search_alpha(run: Run, alphas: Sequence[float], schedule: str) -> tuple[Run, tuple[TriedAlpha, ...]]:
    """Completes a run once for each weight and keeps the one with the best monitored score.

    Each begins from the same weights, and all share cached features. Of equal scores the smaller weight wins.

    Args:
        run: The run, not started; its model is left with the weights of the best.
        alphas: The weights to try, the smallest first.
        schedule: The weight's course over a phase.

    Returns:
        The completed run with the best weight, and what each scored.

    Raises:
        ConfigError: When there is no score on validation rows to choose by.
        TrainingError: When no weight has led to a score that is a number.
    """
    monitor = run.settings.monitor
    if not monitor.startswith("val_") or not len(run.data.validation):
        raise ConfigError(
            "several alphas are compared on the target's validation rows: set monitor to 'val_accuracy' or "
            "'val_loss', and give the data validation rows."
        )
    selection = Selection(monitor)
    before = read_values(run.weights)
    tried: list[TriedAlpha] = []
    best, best_score, best_values = run, None, before
    for alpha in alphas:
        assign_values(run.weights, before)
        trial = replace(
            run,
            objective=Joint(alpha, schedule),
            directory=run.directory / f"alpha-{alpha!r}",
            generator=keras.random.SeedGenerator(run.seed),
            progress=Progress(""),
            best=[],
        )
        complete_run(trial)
        score = _score(trial)
        tried.append(TriedAlpha(alpha, score))
        _LOG.info("alpha %g: %s %.4f", alpha, monitor, score)
        if selection.improved(score, best_score):
            best, best_score, best_values = trial, score, read_values(run.weights)
    if best_score is None or math.isnan(best_score):
        raise TrainingError(
            f"none of the alphas {[trial.alpha for trial in tried]} led to a {monitor} that is a number: the "
            "model's answers on validation rows are none. Lower learning_rate, or train in float32."
        )
    assign_values(run.weights, best_values)
    if run.keep:
        write_history(run.directory / "history.csv", best.progress.history)
    return best, tuple(tried)


def _score(run: Run) -> float:
    """The monitored score of the weights that a completed run has left."""
    if run.settings.keep_best and run.progress.best_value is not None:
        return run.progress.best_value
    return float(run.progress.history[-1][run.settings.monitor])
