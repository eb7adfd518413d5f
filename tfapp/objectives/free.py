"""Free adversarial training: every pass gives a step of the weights and one of the attack."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from tfapp.objectives._passes import Entrance, supervised
from tfapp.objectives._perturbation import check_count
from tfapp.objectives._step import StepResult, TrainableModel
from tfapp.objectives._threat import Threat


class Free:
    """Takes several optimizer steps on each batch, moving the perturbation with the same gradients.

    An epoch costs ``replays`` plain ones, so divide the epochs by it. The perturbation of each batch begins
    at a random place, where the authors' begins with the batch before, and its steps are as long as the
    radius. Moving averages of batch normalisation see the clean batch once. The accuracies in the history are
    those under attack. It is here for comparison: not where ``"adversarial"`` with one step from a random
    start will do, which takes one optimizer step a batch like any other objective.

    Args:
        epsilon: As in `Adversarial`.
        norm: ``"linf"`` or ``"l2"``, of pixels.
        replays: Steps on each batch, 1 or more.
        random_start: Whether the perturbation begins at a random place within the radius.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Shafahi et al. 2019, Adversarial Training for Free!, arXiv:1904.12843.
    """

    name = "free"
    perturbs = True

    def __init__(
        self,
        epsilon: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
        replays: int = 4,
        random_start: bool = True,
    ) -> None:
        self.threat = Threat(epsilon, norm, 1, None, random_start)
        self.replays = check_count("replays", replays)

    @property
    def updates(self) -> int:
        """Optimizer steps a batch."""
        return self.replays

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of the last replay; the others are applied on the way."""
        loss_of = supervised(model, inputs, labels, sample_weight)
        perturbation: tf.Tensor | None = None
        for number in range(self.replays):
            entrance = Entrance(model, inputs)
            ball = self.threat.ball(entrance.place)
            if perturbation is not None:
                points = ball.project(ball.clean + perturbation)
            else:
                points = ball.random(model.step_seed()) if self.threat.random_start else ball.clean
                if model.trains_statistics:
                    entrance.place.logits(entrance.values, training=True)
            points = tf.ensure_shape(points, entrance.values.shape)
            each = entrance.run([points], loss_of)
            gradients = entrance.gradients([each], [1.0])
            if number + 1 < self.replays:
                perturbation = ball.ascend(points, each.at_points[0], ball.radius) - ball.clean
                model.apply_gradients(gradients)
        return StepResult(model.unscaled(each.loss), each.logits[0], gradients)
