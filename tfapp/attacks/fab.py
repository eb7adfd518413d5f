"""The shortest way over the decision boundary, towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, norms, per_example
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, check_settings
from tfapp.attacks._examples import make_examples, runners_up
from tfapp.attacks._hyperplane import onto_hyperplane
from tfapp.attacks._losses import is_wrong, logit_difference, logits_of, loss_and_gradient
from tfapp.attacks._search import Tensors

_OVERSHOOT = 1.05  # how far beyond the linearised boundary a step goes
_MOST_ANCHOR = 0.1  # the largest weight of the step from the clean image
_BACKWARD = 0.9  # what is kept of the way from the clean image after the boundary is crossed
_TINY = 1e-8  # of the range: the shortest step that counts in weighing


def fab(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_steps: int = 100,
    num_targets: int = 9,
    closest: bool = False,
    seed: Seed = 0,
    batch_size: int = 128,
) -> tf.Tensor:
    """Walks along the decision boundary to its point closest to the image, the targeted FAB attack.

    Each step goes to the linearised boundary between the true and the target class, drawn towards the clean
    image, and comes back a tenth of the way once across. As it takes differences of logits, cross-entropy's
    vanished gradients do not stop it. It costs a gradient and a pass for each step and target, more than the
    other attacks, and seldom breaks what `apgd_t` left. To measure distances take ``closest=True``: without
    it the answer is the first point within ``epsilon``, which may be far from the closest one.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices ``(batch,)``; of distributions ``(batch, num_classes)`` the likeliest class.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a scalar tensor.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_steps: Steps towards each target.
        num_targets: Classes to aim at, by the clean image's logits; at most all wrong ones.
        closest: Whether to take all steps to all targets and answer the closest misclassified image, instead
            of the first one within ``epsilon``.
        seed: Taken because every attack takes one; nothing is random here.
        batch_size: How many images are attacked at a time when called eagerly.

    Returns:
        Images of the shape and dtype of ``images``: misclassified ones within ``epsilon`` where they were
        found, the others unchanged.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Croce and Hein 2020, Minimally distorted adversarial examples with a fast adaptive boundary attack,
        arXiv:1907.02044.
    """
    check_settings(
        epsilon=epsilon,
        norm=norm,
        num_steps=num_steps,
        num_targets=num_targets,
        batch_size=batch_size,
    )
    bounds = as_bounds(bounds)
    examples = make_examples(
        model_fn, images, labels, epsilon=epsilon, bounds=bounds, seed=seed, batch_size=batch_size
    )
    search = _BoundaryWalk(norm, bounds, num_steps, closest)
    rounds = [(search, {"target": target}) for target in runners_up(examples, num_targets)]
    return examples.attacked_by(rounds, batch_size=batch_size)


@dataclass(frozen=True)
class _BoundaryWalk:
    norm: str
    bounds: tuple[float, float]
    num_steps: int
    closest: bool

    def begin(self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor) -> Tensors:
        found = self._length(tf.cast(given["answer"], ball.clean.dtype) - ball.clean)
        return {
            "points": ball.clean,
            # An answer that differs from the image is one that an earlier target found.
            "distance": tf.where(found > 0, found, found.dtype.max),
            "answer": given["answer"],
            "done": tf.zeros_like(found, tf.bool),
        }

    def advance(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor, state: Tensors, step: tf.Tensor
    ) -> Tensors:
        points = self._towards_boundary(model_fn, ball, given, state["points"])
        points = tf.cast(ball.inputs(points), points.dtype)
        logits = logits_of(model_fn, ball.inputs(points))
        across = is_wrong(logits, given["labels"])
        distance = self._length(points - ball.clean)
        better = across & ball.contains(points) & (distance < state["distance"])
        wide = per_example(better, points)
        back = ball.clean + _BACKWARD * (points - ball.clean)
        return {
            "points": tf.where(per_example(across, points), back, points),
            "distance": tf.where(better, distance, state["distance"]),
            "answer": tf.where(wide, ball.inputs(points), state["answer"]),
            "done": state["done"] | (better & (not self.closest)),
        }

    def _towards_boundary(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, points: tf.Tensor
    ) -> tf.Tensor:
        def loss_fn(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            return logit_difference(logits, labels, given["target"])

        lead, gradient, _ = loss_and_gradient(model_fn, loss_fn, points, given["labels"], ball.dtype)
        lead = tf.cast(lead, points.dtype)
        gradient = tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))
        shape, flat = tf.shape(points), [tf.shape(points)[0], -1]
        here, start, normal = (tf.reshape(values, flat) for values in (points, ball.clean, gradient))
        # One call for the moves from the point and from the clean image: half the rounds.
        moves = onto_hyperplane(
            tf.concat([here, start], 0),
            tf.concat([normal, normal], 0),
            tf.concat([-lead, tf.reduce_sum(normal * (here - start), axis=1) - lead], 0),
            norm=self.norm,
            bounds=self.bounds,
        )
        onward, outward = tf.split(moves, 2)
        tiny = tf.cast(_TINY * (self.bounds[1] - self.bounds[0]), points.dtype)
        length, anchor_length = (tf.maximum(self._length(move), tiny) for move in (onward, outward))
        anchor = tf.minimum(length / (length + anchor_length), _MOST_ANCHOR)[:, tf.newaxis]
        landed = (here + _OVERSHOOT * onward) * (1.0 - anchor) + (start + _OVERSHOOT * outward) * anchor
        return tf.reshape(tf.clip_by_value(landed, *self.bounds), shape)

    def _length(self, moves: tf.Tensor) -> tf.Tensor:
        if self.norm == "l2":
            return norms(moves)
        return tf.reduce_max(tf.abs(moves), axis=list(range(1, moves.shape.rank)))
