"""Plain empirical risk: the weighted mean loss of the batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.objectives._step import StepResult, TrainableModel


class Standard:
    """Minimises the mean loss on the clean inputs."""

    name = "standard"

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch.

        Args:
            model: The model in training.
            inputs: Its inputs, each ``(batch, ...)``.
            labels: Class indices, int32 ``(batch,)``, or distributions, float32 ``(batch, num_classes)``.
            sample_weight: float32 ``(batch,)`` or None.

        Returns:
            The loss, the logits and one gradient a trainable variable.
        """
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = model.supervised_loss(inputs, labels, logits, sample_weight)
        gradients = tape.gradient(loss, list(model.trainable_variables))
        return StepResult(model.unscaled(loss), logits, gradients)
