"""Answers that change little around each example: the step that SMART and VAT share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfapp.objectives._passes import Entrance, Pass
from tfapp.objectives._perturbation import (
    EMBEDDING_EPSILON,
    check_count,
    check_number,
    noise,
    radii,
    towards,
    within,
)
from tfapp.objectives._step import Perturbable, StepResult, TrainableModel

Ascent = Callable[[tf.Tensor], tf.Tensor]


class Smoothness:
    """Minimises ``L(clean) + weight * d(clean, perturbed)``, perturbed to make ``d`` large.

    Args:
        epsilon: Length of the perturbation as a share of the example's norm, 0 or more.
        weight: What the divergence counts, 0 or more.
        num_steps: Gradient steps that look for the perturbation, 1 or more.
        start: Length of the random perturbation to begin with, as a share of ``epsilon``, more than 0 and at
            most 1.

    Raises:
        ConfigError: When an argument is out of range.
    """

    perturbs = True
    name: str
    divergence: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

    def __init__(
        self,
        epsilon: float = EMBEDDING_EPSILON,
        weight: float = 1.0,
        num_steps: int = 1,
        start: float = 0.1,
    ) -> None:
        self.epsilon = check_number("epsilon", epsilon)
        self.weight = check_number("weight", weight)
        self.num_steps = check_count("num_steps", num_steps)
        self.start = check_number("start", start, positive=True, most=1.0)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values = entrance.place, entrance.values
        radius, apart = radii(place, self.epsilon), type(self).divergence
        variables = list(model.trainable_variables)

        def answers(point: Any) -> Any:
            return place.logits(point, training=True)

        def kept(point: Any) -> Any:
            return (
                model.keeping_statistics(lambda: answers(point))
                if model.trains_statistics
                else answers(point)
            )

        with tf.GradientTape() as tape:
            tape.watch(values)
            clean = answers(values)
            with tape.stop_recording():
                fixed = tf.stop_gradient(clean)

                def ascent(perturbation: tf.Tensor) -> tf.Tensor:
                    with tf.GradientTape(watch_accessed_variables=False) as inner:
                        inner.watch(perturbation)
                        distance = tf.reduce_sum(apart(fixed, kept(values + perturbation)))
                    return towards(place, inner.gradient(distance, perturbation), radius)

                begin = within(place, noise(place, self.start * radius, model.step_seed()), radius)
                perturbation = self._found(place, begin, ascent, radius)
            perturbed = kept(values + tf.stop_gradient(perturbation))
            loss = model.supervised_loss(inputs, labels, clean, sample_weight)
            loss += self.weight * model.scaled_mean(apart(clean, perturbed), sample_weight)
        *gradients, at_values = tape.gradient(loss, [*variables, values])
        both = Pass(loss, [clean], gradients, [at_values])
        return StepResult(model.unscaled(loss), clean, entrance.gradients([both], [1.0]))

    def _found(self, place: Perturbable, begin: tf.Tensor, ascent: Ascent, radius: tf.Tensor) -> tf.Tensor:
        """Looks for the perturbation by steps as long as the radius, each shortened to it.

        Args:
            place: What is perturbed.
            begin: The random perturbation to begin with.
            ascent: From a perturbation to the direction in which the divergence grows, as long as the radius.
            radius: Of each example, in a shape that multiplies the values.

        Returns:
            The perturbation, within the radius.
        """
        perturbation = begin
        for _ in range(self.num_steps):
            perturbation = within(place, perturbation + ascent(perturbation), radius)
        return perturbation
