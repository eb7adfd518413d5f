"""FreeLB: several steps of ascent, whose gradients for the weights are all used."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.objectives._passes import Entrance, Pass, supervised
from tfapp.objectives._perturbation import (
    EMBEDDING_EPSILON,
    check_count,
    check_number,
    noise,
    radii,
    towards,
    within,
)
from tfapp.objectives._step import StepResult, TrainableModel


class FreeLb:
    """Minimises the mean loss over the points of an ascent that begins near the clean example.

    Every pass gives gradients for the weights and the next step at once, and costs a whole training step. Not
    where time counts: ``"fgm"`` is its case of two passes. Dropout draws anew in every pass, where the
    authors keep it.

    Args:
        epsilon: Greatest length of the perturbation as a share of the example's norm, 0 or more.
        num_steps: Passes a batch, 1 or more.
        step_size: Length of a step as a share of the example's norm; ``epsilon`` over the number of steps
            after the first, when None.
        start: Length of the random first perturbation as a share of ``epsilon``, from 0 to 1; 0 begins at
            the clean example.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Zhu et al. 2020, FreeLB: Enhanced Adversarial Training for Natural Language Understanding,
        arXiv:1909.11764.
    """

    name = "freelb"
    perturbs = True

    def __init__(
        self,
        epsilon: float = EMBEDDING_EPSILON,
        num_steps: int = 3,
        step_size: float | None = None,
        start: float = 0.0,
    ) -> None:
        self.epsilon = check_number("epsilon", epsilon)
        self.num_steps = check_count("num_steps", num_steps)
        given = self.epsilon / max(1, num_steps - 1) if step_size is None else step_size
        self.step_size = check_number("step_size", given)
        self.start = check_number("start", start, most=1.0)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values = entrance.place, entrance.values
        loss_of = supervised(model, inputs, labels, sample_weight)
        radius, length = radii(place, self.epsilon), radii(place, self.step_size)
        perturbation = tf.zeros_like(values)
        if self.start:
            perturbation = within(place, noise(place, self.start * radius, model.step_seed()), radius)
        passes: list[Pass] = []
        for number in range(self.num_steps):
            passes.append(entrance.run([values + perturbation], loss_of, perturbed=[number > 0]))
            if number + 1 < self.num_steps:
                step = towards(place, passes[-1].at_points[0], length)
                perturbation = within(place, perturbation + step, radius)
        share = 1.0 / self.num_steps
        loss = tf.add_n([each.loss for each in passes]) * share
        gradients = entrance.gradients(passes, [share] * self.num_steps)
        return StepResult(model.unscaled(loss), passes[0].logits[0], gradients)
