"""Passes over one batch at several points, whose gradients meet where the points part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfapp.objectives._step import TrainableModel


class Pass(NamedTuple):
    """One pass forward and backward.

    Attributes:
        loss: What was differentiated, a scalar.
        logits: float32 ``(batch, num_classes)`` of each point, in order.
        gradients: One a trainable variable; None where the variable has no part in it. Empty without them.
        at_points: The gradient at each point, shaped like it.
    """

    loss: tf.Tensor
    logits: list[tf.Tensor]
    gradients: list[Any]
    at_points: list[tf.Tensor]


class Entrance:
    """What a batch is before it is perturbed, and the way of gradients from there down.

    Args:
        model: The model in training.
        inputs: The batch's inputs.
    """

    def __init__(self, model: TrainableModel, inputs: Any) -> None:
        self.model, self.inputs = model, inputs
        with tf.GradientTape() as self._tape:
            self.place = model.perturbable(inputs)
        self.values = tf.stop_gradient(self.place.values)

    def run(
        self,
        points: Sequence[tf.Tensor],
        loss_of: Callable[..., tf.Tensor],
        *,
        perturbed: Sequence[bool] = (True,),
        variables: bool = True,
    ) -> Pass:
        """Computes a loss of the logits at some points, and its gradients.

        Args:
            points: Values of the batch, each shaped like ``values``.
            loss_of: From the logits of each point, in training mode, to a scalar.
            perturbed: For each point, whether moving averages are kept from it.
            variables: Whether gradients of variables are wanted; without them a pass costs a third less.

        Returns:
            The pass.
        """
        trained = list(self.model.trainable_variables) if variables else []
        points = [tf.stop_gradient(point) for point in points]
        with tf.GradientTape(watch_accessed_variables=variables) as tape:
            tape.watch(points)
            logits = [self._logits(point, kept) for point, kept in zip(points, perturbed, strict=True)]
            loss = loss_of(*logits)
        gradients = tape.gradient(loss, [*trained, *points])
        return Pass(loss, logits, gradients[: len(trained)], gradients[len(trained) :])

    def _logits(self, point: tf.Tensor, kept: bool) -> tf.Tensor:
        if kept and self.model.trains_statistics:
            return self.model.keeping_statistics(lambda: self.place.logits(point, training=True))
        return self.place.logits(point, training=True)

    def gradients(self, passes: Sequence[Pass], weights: Sequence[float]) -> list[Any]:
        """Adds up the gradients of passes, those of what lies below the points included.

        Args:
            passes: The passes.
            weights: What each counts.

        Returns:
            One gradient a trainable variable.
        """
        at_values = tf.add_n(
            [weight * point for each, weight in zip(passes, weights, strict=True) for point in each.at_points]
        )
        below = self._tape.gradient(
            self.place.values, list(self.model.trainable_variables), output_gradients=at_values
        )
        totals = [
            add([_times(each.gradients[index], weight) for each, weight in zip(passes, weights, strict=True)])
            for index in range(len(below))
        ]
        return [add([total, lower]) for total, lower in zip(totals, below, strict=True)]


def _times(gradient: Any, weight: float) -> Any:
    if gradient is None or weight == 1.0:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * weight, gradient.indices, gradient.dense_shape)
    return gradient * weight


def add(gradients: Sequence[Any]) -> Any:
    """Adds gradients of one variable; sparse ones stay sparse where all are.

    Args:
        gradients: Dense or `tf.IndexedSlices`, or None for none.

    Returns:
        Their sum, or None.
    """
    given = [gradient for gradient in gradients if gradient is not None]
    if len(given) < 2:
        return given[0] if given else None
    if all(isinstance(gradient, tf.IndexedSlices) for gradient in given):
        return tf.IndexedSlices(
            tf.concat([gradient.values for gradient in given], 0),
            tf.concat([gradient.indices for gradient in given], 0),
            given[0].dense_shape,
        )
    return tf.add_n([tf.convert_to_tensor(gradient) for gradient in given])


def supervised(
    model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The supervised loss of a batch as a function of its logits."""
    return lambda logits: model.supervised_loss(inputs, labels, logits, sample_weight)
