"""MART: adversarial training that looks harder at what the model gets wrong without an attack."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from tfapp.objectives._divergence import divergence
from tfapp.objectives._passes import Entrance
from tfapp.objectives._perturbation import check_number
from tfapp.objectives._step import StepResult, TrainableModel
from tfapp.objectives._threat import Threat

_SURE = 1e-4


class Mart:
    """Minimises ``L(attacked) + margin(attacked) + beta * KL(clean || attacked) * (1 - p_clean(label))``.

    The margin is ``-log(1 - the highest probability of another class)``. The attack takes 7 steps where the
    authors' takes 10, and begins anywhere in the ball, where theirs begins at 0.001 times a normal draw. Not
    without a look at ``standard``: what a model withstands under PGD alone may be masked gradients.

    Args:
        epsilon: As in `Adversarial`.
        norm: ``"linf"`` or ``"l2"``, of pixels.
        num_steps: Gradient steps of the attack.
        step_size: Length of a step in the unit of ``epsilon``; chosen by the attack when None.
        random_start: Whether the attack begins at a random place within the radius.
        beta: What the weighted divergence counts, 0 or more.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Wang et al. 2020, Improving Adversarial Robustness Requires Revisiting Misclassified Examples,
        ICLR, openreview.net/forum?id=rklOg6EFwS.
    """

    name = "mart"
    perturbs = True

    def __init__(
        self,
        epsilon: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
        num_steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        beta: float = 5.0,
    ) -> None:
        self.threat = Threat(epsilon, norm, num_steps, step_size, random_start)
        self.beta = check_number("beta", beta)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values = entrance.place, entrance.values
        attacked = self.threat.find(place, labels, seed=model.step_seed(), loss="cross_entropy")
        truth = labels
        if not labels.dtype.is_floating:
            truth = tf.one_hot(labels, model.num_classes, dtype=tf.float32)

        def loss_of(clean: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            wrong = tf.reduce_max(tf.nn.softmax(other) * (1.0 - tf.sign(truth)), axis=-1)
            margin = -tf.math.log(1.0 + _SURE - wrong)
            unsure = 1.0 - tf.reduce_sum(truth * tf.nn.softmax(clean), axis=-1)
            further = margin + self.beta * divergence(clean, other) * unsure
            own = model.supervised_loss(inputs, labels, other, sample_weight)
            return own + model.scaled_mean(further, sample_weight)

        both = entrance.run([values, attacked], loss_of, perturbed=[False, True])
        return StepResult(model.unscaled(both.loss), both.logits[0], entrance.gradients([both], [1.0]))
