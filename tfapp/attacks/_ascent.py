"""APGD's search: ascent with momentum, and a step that is halved where it makes no progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from tfapp.attacks._ball import Ball, per_example
from tfapp.attacks._checks import ModelFn
from tfapp.attacks._losses import LOSSES, TARGETED_LOSSES, is_wrong, loss_and_gradient
from tfapp.attacks._search import Tensors

_MOMENTUM = 0.25  # of the last move, beside 0.75 of the step
_RISING_SHARE = 0.75  # of the steps between two checkpoints that must have raised the loss


def checkpoints(num_steps: int) -> dict[int, int]:
    """Gives the steps after which the step size is judged, and how many steps each judges.

    Args:
        num_steps: Steps in all; the first period is 22 % of them, each later one 3 % of them shorter, down
            to 6 %.

    Returns:
        The number of steps done at each checkpoint, to the length of the period before it.
    """
    period, shorter, shortest = (max(num_steps * percent // 100, 1) for percent in (22, 3, 6))
    found, done = {}, period
    while done <= num_steps:
        found[done] = period
        period = max(period - shorter, shortest)
        done += period
    return found


@dataclass(frozen=True)
class Ascent:
    """One run from a random start; stops an example at its first misclassified point.

    Attributes:
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of an input.
        num_steps: Steps after the start; each costs one gradient, and so does the start.
        loss: A key of `LOSSES`, or with ``targeted`` of `TARGETED_LOSSES`.
        targeted: Whether the loss goes towards the class ``target`` of each example.
    """

    norm: str
    bounds: tuple[float, float]
    num_steps: int
    loss: str
    targeted: bool = False

    def begin(self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor) -> Tensors:
        """Starts at a random point, with a step of twice the radius."""
        points = ball.random(seed)
        loss, gradient, wrong = self._judge(model_fn, ball, given, points)
        best_loss = tf.where(wrong, math.inf, loss)
        return {
            "points": points,
            "previous": points,
            "gradient": gradient,
            "loss": loss,
            "size": tf.fill(tf.shape(loss), 2.0 * ball.radius),
            "rises": tf.zeros_like(loss),
            "halved": tf.ones_like(wrong),
            "best_before": best_loss,
            "best_loss": best_loss,
            "best_gradient": gradient,
            "answer": ball.inputs(points),
            "done": wrong,
        }

    def advance(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, seed: tf.Tensor, state: Tensors, step: tf.Tensor
    ) -> Tensors:
        """Takes one step, and judges the step size where a checkpoint is."""
        points = state["points"]
        inertia = tf.where(step > 0, tf.cast(_MOMENTUM, points.dtype), tf.cast(0.0, points.dtype))
        ahead = ball.ascend(points, state["gradient"], state["size"])
        moved = ball.project(
            points + (1.0 - inertia) * (ahead - points) + inertia * (points - state["previous"])
        )
        loss, gradient, wrong = self._judge(model_fn, ball, given, moved)

        # The first misclassified point is the answer, whatever its loss: from then on no loss is better.
        broken = wrong & ~state["done"]
        better = broken | (loss > state["best_loss"])
        wide = per_example(better, points)
        answer = tf.where(wide, ball.inputs(moved), state["answer"])
        best_gradient = tf.where(wide, gradient, state["best_gradient"])
        best_loss = tf.where(broken, math.inf, tf.where(better, loss, state["best_loss"]))
        rises = state["rises"] + tf.cast(loss > state["loss"], loss.dtype)

        periods = checkpoints(self.num_steps)
        period = tf.constant([periods.get(done + 1, 0) for done in range(self.num_steps)], loss.dtype)[step]
        check = period > 0
        stuck = ~state["halved"] & (state["best_before"] >= best_loss)
        halve = check & ((rises <= _RISING_SHARE * period) | stuck)
        back = per_example(halve, points)
        return {
            "points": tf.where(back, tf.cast(answer, points.dtype), moved),
            "previous": points,
            "gradient": tf.where(back, best_gradient, gradient),
            "loss": loss,
            "size": tf.where(halve, state["size"] / 2.0, state["size"]),
            "rises": tf.where(check, tf.zeros_like(rises), rises),
            "halved": tf.where(check, halve, state["halved"]),
            "best_before": tf.where(check, best_loss, state["best_before"]),
            "best_loss": best_loss,
            "best_gradient": best_gradient,
            "answer": answer,
            "done": state["done"] | wrong,
        }

    def _judge(
        self, model_fn: ModelFn, ball: Ball, given: Tensors, points: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def loss_fn(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            if self.targeted:
                return TARGETED_LOSSES[self.loss](logits, labels, given["target"])
            return LOSSES[self.loss](logits, labels)

        loss, gradient, logits = loss_and_gradient(model_fn, loss_fn, points, given["labels"], ball.dtype)
        return loss, gradient, is_wrong(logits, given["labels"])
