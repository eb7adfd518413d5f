"""The attack of an objective: what it may change, and how hard it looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball
from tfapp.attacks._ball import norms as norms_of
from tfapp.attacks.embedding_pgd import embedding_pgd
from tfapp.attacks.fgsm import fgsm
from tfapp.attacks.pgd import pgd
from tfapp.data.pixel_budgets import check_pixel_budget
from tfapp.errors import ConfigError, nearest
from tfapp.objectives._perturbation import EMBEDDING_EPSILON, check_count, check_number, masked
from tfapp.objectives._step import Perturbable

PIXEL_EPSILON = 8 / 255
"""Default radius in the maximum norm, as a share of the range of pixels."""
NORMS = ("linf", "l2")


class Threat:
    """Looks for a perturbation within a radius that raises a loss, with the model in inference mode.

    On pixels ``epsilon`` is a share of their range, in the norm ``norm``; on embeddings and features it is a
    share of the example's own Euclidean norm.

    Args:
        epsilon: The radius, 0 or more; ``8/255`` for pixels and 0.1 for others when None.
        norm: ``"linf"`` or ``"l2"``, of pixels.
        num_steps: Gradient steps; 1, which is FGSM or FGM, when None.
        step_size: Length of a step in the unit of ``epsilon``; when None what the attack chooses.
        random_start: Whether the first step begins at a random place within the radius.

    Raises:
        ConfigError: When an argument is unknown or out of range.
    """

    def __init__(
        self,
        epsilon: float | None,
        norm: str,
        num_steps: int | None,
        step_size: float | None,
        random_start: bool,
    ) -> None:
        self.epsilon = None if epsilon is None else check_number("epsilon", epsilon)
        if norm not in NORMS:
            raise ConfigError(f"unknown norm {norm!r}; {nearest(norm, NORMS)}")
        self.norm = norm
        self.num_steps = 1 if num_steps is None else check_count("num_steps", num_steps)
        self.step_size = None if step_size is None else check_number("step_size", step_size)
        self.random_start = bool(random_start)

    def radius(self, place: Perturbable) -> float:
        """The radius in the unit of a place.

        Raises:
            ConfigError: When it is larger than the range of pixels.
        """
        radius = radius_at(place, self.epsilon)
        if place.bounds is not None:
            check_pixel_budget("epsilon", radius, self.norm)
        return radius

    def ball(self, place: Perturbable) -> Ball:
        """All that a batch may be changed into."""
        values, epsilon = tf.stop_gradient(place.values), self.radius(place)
        if place.bounds is not None:
            reach = epsilon * (place.bounds[1] - place.bounds[0])
            return Ball(values, reach, norm=self.norm, bounds=place.bounds)
        mask = None if place.mask is None else place.mask[..., tf.newaxis]
        return Ball(values, epsilon * norms_of(masked(place, values)), norm="l2", mask=mask)

    def find(
        self,
        place: Perturbable,
        targets: Any,
        *,
        seed: tf.Tensor,
        loss: str | Callable[..., tf.Tensor] = "cross_entropy",
    ) -> tf.Tensor:
        """Finds perturbed values.

        Args:
            place: What is perturbed.
            targets: What ``loss`` takes beside logits: labels, or the clean logits.
            seed: int32 ``(2,)``.
            loss: What is raised, as the attacks take it.

        Returns:
            Shaped like the values of the place; no gradient flows through it.
        """
        values = tf.stop_gradient(place.values)

        def model_fn(points: tf.Tensor) -> tf.Tensor:
            return place.logits(points, training=False)

        shared: dict[str, Any] = {
            "epsilon": self.radius(place),
            "step_size": self.step_size,
            "random_start": self.random_start,
            "loss": loss,
            "seed": seed,
        }
        if place.bounds is not None:
            shared |= {"norm": self.norm, "bounds": place.bounds}
            if self.num_steps == 1:
                return tf.stop_gradient(fgsm(model_fn, values, targets, **shared))
            return tf.stop_gradient(pgd(model_fn, values, targets, num_steps=self.num_steps, **shared))
        tokens, mask, shape = as_tokens(place)
        found = embedding_pgd(
            lambda points: model_fn(tf.reshape(points, shape)),
            tokens,
            targets,
            mask=mask,
            num_steps=self.num_steps,
            **shared,
        )
        return tf.stop_gradient(tf.reshape(found, shape))


def radius_at(place: Perturbable, epsilon: float | None) -> float:
    """The radius in the unit of a place: what was asked for, or the default of such places."""
    if epsilon is not None:
        return epsilon
    return EMBEDDING_EPSILON if place.bounds is None else PIXEL_EPSILON


def as_tokens(place: Perturbable) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The values of a place as attacks on embeddings take them.

    Args:
        place: What is perturbed; where it has no mask, each example becomes one token.

    Returns:
        Values ``(batch, sequence, hidden)``, their mask ``(batch, sequence)``, and the shape that they had.
    """
    values = tf.stop_gradient(place.values)
    shape = tf.shape(values)
    if place.mask is not None:
        return values, place.mask, shape
    tokens = tf.reshape(values, [shape[0], 1, math.prod(values.shape[1:])])
    return tokens, tf.ones([shape[0], 1]), shape
