"""FGM: one step along the gradient that the clean pass has anyway, and a second pass from there."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.objectives._passes import Entrance, supervised
from tfapp.objectives._perturbation import (
    EMBEDDING_EPSILON,
    check_number,
    radii,
    towards,
    within,
)
from tfapp.objectives._step import StepResult, TrainableModel


class Fgm:
    """Minimises ``(1 - w) * L(clean) + w * L(clean + one gradient step)``.

    The step has the Euclidean length ``epsilon`` times the example's own norm, on the embeddings of texts, on
    pixels, or on cached features of a frozen backbone. For texts, begin with it: of the objectives that
    perturb all of a model it costs least. Not for attacks on images in the maximum norm: use
    ``"adversarial"`` or ``"trades"``.

    Args:
        epsilon: Length of the step as a share of the example's norm, 0 or more.
        adversarial_weight: ``w``, from 0 to 1.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Miyato et al. 2017, Adversarial Training Methods for Semi-Supervised Text Classification,
        arXiv:1605.07725.
    """

    name = "fgm"
    perturbs = True

    def __init__(self, epsilon: float = EMBEDDING_EPSILON, adversarial_weight: float = 0.5) -> None:
        self.epsilon = check_number("epsilon", epsilon)
        self.adversarial_weight = check_number("adversarial_weight", adversarial_weight, most=1.0)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values = entrance.place, entrance.values
        loss_of = supervised(model, inputs, labels, sample_weight)
        both = self.adversarial_weight < 1.0
        clean = entrance.run([values], loss_of, perturbed=[False], variables=both)
        step = towards(place, clean.at_points[0], radii(place, self.epsilon))
        step = within(place, step, radii(place, self.epsilon))
        other = entrance.run([values + step], loss_of)
        passes = [clean, other] if both else [other]
        shares = [1.0 - self.adversarial_weight, self.adversarial_weight] if both else [1.0]
        loss = tf.add_n([share * each.loss for share, each in zip(shares, passes, strict=True)])
        return StepResult(model.unscaled(loss), clean.logits[0], entrance.gradients(passes, shares))
