"""The course of the learning rate."""

from __future__ import annotations

import logging
import math
from typing import Any

import keras
import tensorflow as tf

from tfapp.training.settings import Phase, TrainSettings

_LOG = logging.getLogger("tfapp")


@keras.saving.register_keras_serializable("tfapp")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises linearly to ``peak``, then falls to 0 or stays.

    Args:
        peak: Highest learning rate, more than 0.
        total_steps: Steps of the whole phase.
        warmup_steps: Steps until the peak, 0 or more.
        shape: ``"linear"``, ``"cosine"`` or ``"constant"`` after the warm-up.

    Reference:
        Devlin et al. 2019, BERT, arXiv:1810.04805 (appendix A.3 fine-tunes with linear warm-up and decay).
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int, shape: str = "linear") -> None:
        self.peak, self.total_steps, self.warmup_steps, self.shape = peak, total_steps, warmup_steps, shape

    def __call__(self, step: Any) -> Any:
        """Gives the learning rate of a step, a float32 scalar."""
        done = tf.cast(step, tf.float32)
        warm = (done + 1.0) / max(1, self.warmup_steps)
        left = (self.total_steps - done) / max(1, self.total_steps - self.warmup_steps)
        left = tf.clip_by_value(left, 0.0, 1.0)
        if self.shape == "cosine":
            left = 0.5 * (1.0 - tf.cos(math.pi * left))
        elif self.shape == "constant":
            left = tf.ones_like(left)
        return self.peak * tf.minimum(tf.minimum(warm, 1.0), left)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal schedule."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "shape": self.shape,
        }


def make_schedule(settings: TrainSettings, phase: Phase, *, total_steps: int) -> WarmupDecay:
    """Makes the course of a phase's learning rate.

    Args:
        settings: The warm-up's share and the shape after it.
        phase: Whose learning rate is the peak.
        total_steps: Steps of the phase.

    Returns:
        The learning rate by step.
    """
    warmup_steps = round(settings.warmup_fraction * total_steps)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    factor = {"none": 1.0, "linear": float(replicas), "sqrt": math.sqrt(replicas)}
    peak = phase.learning_rate * factor[settings.learning_rate_scaling]
    if peak != phase.learning_rate:
        _LOG.info(
            "learning rate of phase '%s': %g, scaled from %g (%s in %d devices)",
            phase.title,
            peak,
            phase.learning_rate,
            settings.learning_rate_scaling,
            replicas,
        )
    return WarmupDecay(peak, total_steps, warmup_steps, settings.schedule)
