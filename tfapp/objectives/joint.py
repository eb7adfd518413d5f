"""Two tasks at once: the target's loss and, weighed by alpha, that of a source task with its own head."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.objectives._step import StepResult, TrainableModel

ALPHA_SCHEDULES = ("constant", "linear", "cosine")


class Joint:
    """Minimises ``L_target + alpha * L_source``, each the mean loss over its own rows of the batch.

    Losses of regularisers, which belong to neither task, are added once.

    The model's logits are those of the target and, behind them, those of the source; in a batch the rows of
    the target come first. Labels of source rows are offset by the number of target classes, so a label tells
    its task. The softmax of a row goes over the logits of its own task only.

    Args:
        alpha: Weight of the source's loss, 0 or more.
        alpha_schedule: ``"constant"``, or ``"linear"`` or ``"cosine"`` from ``alpha`` to 0 over the phase.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Caruana 1997, Multitask Learning; Ge and Yu 2017, Borrowing Treasures from the Wealthy,
        arXiv:1702.08690 (joint fine-tuning on source and target).
    """

    name = "joint"

    def __init__(self, alpha: float = 1.0, alpha_schedule: str = "constant") -> None:
        if not 0.0 <= alpha < math.inf:
            raise ConfigError(f"alpha = {alpha}: it must be a finite number, 0 or more.")
        if alpha_schedule not in ALPHA_SCHEDULES:
            raise ConfigError(
                f"unknown alpha_schedule {alpha_schedule!r}; {nearest(alpha_schedule, ALPHA_SCHEDULES)}"
            )
        self.alpha, self.alpha_schedule = float(alpha), alpha_schedule

    def alpha_at(self, progress: Any) -> tf.Tensor:
        """Gives the source's weight at a point of the phase.

        Args:
            progress: Share of the phase's steps that are done, a scalar from 0 to 1.

        Returns:
            A float32 scalar.
        """
        done = tf.cast(progress, tf.float32)
        if self.alpha_schedule == "linear":
            return self.alpha * (1.0 - done)
        if self.alpha_schedule == "cosine":
            return self.alpha * 0.5 * (1.0 + tf.cos(math.pi * done))
        return tf.constant(self.alpha, tf.float32)

    def groups(self, model: TrainableModel, labels: Any) -> tf.Tensor:
        """Tells the rows of the target, 0, from those of the source, 1; see `Objective`."""
        own = model.num_classes
        if labels.shape.rank == 1:
            return tf.cast(labels >= own, tf.int32)
        return tf.cast(tf.reduce_sum(labels[:, :own], axis=1) <= 0.5, tf.int32)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch.

        Args:
            model: The model in training.
            inputs: Its inputs, each ``(batch, ...)``: rows of the target, then at least one of the source.
            labels: Class indices, int32 ``(batch,)``, or distributions over the classes of both tasks,
                float32 ``(batch, target and source classes)``.
            sample_weight: float32 ``(batch,)`` or None.

        Returns:
            The joint loss, one gradient a trainable variable, and logits and labels of the target's rows.
        """
        own, indices = model.num_classes, labels.shape.rank == 1
        border = tf.reduce_sum(1 - self.groups(model, labels))
        target_labels = labels[:border] if indices else labels[:border, :own]
        source_labels = labels[border:] - own if indices else labels[border:, own:]
        weights = (None, None) if sample_weight is None else (sample_weight[:border], sample_weight[border:])
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            target_logits, source_logits = logits[:border, :own], logits[border:, own:]
            target = model.supervised_loss(inputs, target_labels, target_logits, weights[0])
            source = model.supervised_loss(
                inputs, source_labels, source_logits, weights[1], regularised=False
            )
            loss = target + self.alpha_at(model.progress) * source
        gradients = tape.gradient(loss, list(model.trainable_variables))
        return StepResult(model.unscaled(loss), target_logits, gradients, target_labels)
