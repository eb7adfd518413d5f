"""TRADES: clean accuracy, and answers that an attack cannot move, in an exchange that one number sets."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from tfapp.objectives._divergence import divergence
from tfapp.objectives._passes import Entrance
from tfapp.objectives._perturbation import check_number
from tfapp.objectives._step import StepResult, TrainableModel
from tfapp.objectives._threat import Threat


def _moved(logits: tf.Tensor, clean: tf.Tensor) -> tf.Tensor:
    return divergence(clean, logits)


class Trades:
    """Minimises ``L(clean) + beta * KL(clean || attacked)``, attacked to make the divergence large.

    For images where ``"adversarial"`` costs too much clean accuracy: ``beta`` sets the exchange. Not with
    ``beta`` far above 6, the authors' choice for CIFAR-10: answers that are all alike have no divergence. The
    attack begins anywhere in the ball, where the authors' begins at 0.001 times a normal draw, and takes 7
    steps where theirs takes 10.

    Args:
        epsilon: As in `Adversarial`.
        norm: ``"linf"`` or ``"l2"``, of pixels.
        num_steps: Gradient steps of the attack.
        step_size: Length of a step in the unit of ``epsilon``; chosen by the attack when None.
        random_start: Whether the attack begins at a random place within the radius. At the clean example
            the divergence has no gradient, so without it the attack raises the cross-entropy instead.
        beta: What the divergence counts, 0 or more; more is more robust and less accurate.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Zhang et al. 2019, Theoretically Principled Trade-off between Robustness and Accuracy,
        arXiv:1901.08573.
    """

    name = "trades"
    perturbs = True

    def __init__(
        self,
        epsilon: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
        num_steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        beta: float = 6.0,
    ) -> None:
        self.threat = Threat(epsilon, norm, num_steps, step_size, random_start)
        self.beta = check_number("beta", beta)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values = entrance.place, entrance.values
        if self.threat.random_start:
            fixed = tf.stop_gradient(place.logits(values, training=False))
            attacked = self.threat.find(place, fixed, seed=model.step_seed(), loss=_moved)
        else:
            attacked = self.threat.find(place, labels, seed=model.step_seed(), loss="cross_entropy")

        def loss_of(clean: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            moved = model.scaled_mean(divergence(clean, other), sample_weight)
            return model.supervised_loss(inputs, labels, clean, sample_weight) + self.beta * moved

        both = entrance.run([values, attacked], loss_of, perturbed=[False, True])
        return StepResult(model.unscaled(both.loss), both.logits[0], entrance.gradients([both], [1.0]))
