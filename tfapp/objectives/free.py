"""Free adversarial training: every pass gives a step of the weights and one of the attack."""

from __future__ import annotations

import math
from typing import Any, Literal

import tensorflow as tf

from tfapp.objectives._passes import Entrance, supervised
from tfapp.objectives._perturbation import check_count, noise, radii, towards, within
from tfapp.objectives._step import Perturbable, StepResult, TrainableModel
from tfapp.objectives._threat import Threat


class Free:
    """Takes several optimizer steps on each batch, moving the perturbation with the same gradients.

    An epoch costs ``replays`` plain ones, so divide the epochs by it. The perturbation of each batch begins
    at a random place, where the authors' begins with the batch before. Mostly of historical interest:
    ``"adversarial"`` with one step from a random start is as fast and hardens more.

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
            if perturbation is None:
                perturbation = self._start(entrance.place, model.step_seed())
            each = entrance.run([entrance.values + perturbation], loss_of, perturbed=[False])
            gradients = entrance.gradients([each], [1.0])
            if number + 1 < self.replays:
                perturbation = self._ascend(entrance.place, perturbation, each.at_points[0])
                model.apply_gradients(gradients)
        return StepResult(model.unscaled(each.loss), each.logits[0], gradients)

    def _box(self, place: Perturbable) -> float | None:
        """The radius in the maximum norm in the unit of the values; None for the Euclidean norm."""
        if place.bounds is None or self.threat.norm != "linf":
            return None
        return self.threat.radius(place) * (place.bounds[1] - place.bounds[0])

    def _radius(self, place: Perturbable) -> tf.Tensor:
        """The Euclidean radius."""
        epsilon = self.threat.radius(place)
        if place.bounds is None:
            return radii(place, epsilon)
        ones = tf.ones_like(radii(place, 0.0))
        return ones * epsilon * (place.bounds[1] - place.bounds[0])

    def _start(self, place: Perturbable, seed: tf.Tensor) -> tf.Tensor:
        if not self.threat.random_start:
            return tf.zeros_like(place.values)
        box = self._box(place)
        if box is None:
            return within(place, noise(place, self._radius(place), seed), self._radius(place))
        drawn = tf.random.stateless_uniform(tf.shape(place.values), seed, -box, box)
        return self._boxed(place, drawn, box)

    def _ascend(self, place: Perturbable, perturbation: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        box = self._box(place)
        if box is None:
            radius = self._radius(place)
            return tf.stop_gradient(within(place, perturbation + towards(place, gradient, radius), radius))
        return tf.stop_gradient(self._boxed(place, perturbation + box * tf.sign(gradient), box))

    def _boxed(self, place: Perturbable, perturbation: tf.Tensor, box: float) -> tf.Tensor:
        values = tf.stop_gradient(place.values)
        inside = tf.clip_by_value(perturbation, -box, box)
        lower, upper = place.bounds or (-math.inf, math.inf)
        return tf.clip_by_value(values + inside, lower, upper) - values
