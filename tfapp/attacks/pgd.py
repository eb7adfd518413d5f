"""Several projected steps of steepest ascent, from one or more starts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, as_number, per_example
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, as_images, as_seed, check_settings, fold
from tfapp.attacks._compiled import repeat, run_compiled
from tfapp.attacks._losses import (
    LossFn,
    is_wrong,
    logits_of,
    loss_and_gradient,
    loss_labels,
    make_loss,
)


def pgd(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_steps: int = 10,
    step_size: float | tf.Tensor | None = None,
    num_restarts: int = 1,
    random_start: bool = True,
    loss: str | LossFn = "cross_entropy",
    seed: Seed = 0,
) -> tf.Tensor:
    """Climbs the loss in ``num_steps`` steps, each projected back into the budget.

    One restart costs ``num_steps`` gradients at the inputs and nothing else; with more of them, each costs
    one more pass to choose, for every example, the point that is misclassified or has the highest loss.
    Do not report it alone: a fixed step and cross-entropy overlook weaknesses that `standard` finds.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices ``(batch,)``, distributions ``(batch, num_classes)``, or what ``loss`` takes.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a tensor, scalar or
            ``(batch,)``.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_steps: Steps from each start.
        step_size: Length of a step in the unit of ``epsilon``, 0 or more, at which the points stay at their
            start; the default is ``2.5 * epsilon / num_steps``.
        num_restarts: Starts; the second and later ones are random whatever ``random_start`` says.
        random_start: Whether the first start is random too.
        loss: What to raise: ``"cross_entropy"``, ``"dlr"``, ``"margin"``, or a function of logits and labels
            that answers one number for each example, for example a divergence from clean logits.
        seed: Of the random starts: a whole number, or an int32 tensor ``(2,)``.

    Returns:
        Adversarial images of the shape and dtype of ``images``.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083.
    """
    check_settings(
        epsilon=epsilon,
        norm=norm,
        step_size=step_size,
        num_steps=num_steps,
        num_restarts=num_restarts,
    )
    bounds = as_bounds(bounds)
    loss_fn = make_loss(loss)
    pixels = as_images(images, bounds)
    targets, classes = loss_labels(loss, labels, pixels)
    scale = bounds[1] - bounds[0]
    size = (2.5 * epsilon / num_steps if step_size is None else step_size) * scale

    def climbs(
        model_fn: ModelFn, pixels: tf.Tensor, labels: Any, radius: Any, size: Any, seed: tf.Tensor
    ) -> tf.Tensor:
        ball = Ball(pixels, radius, norm=norm, bounds=bounds)

        def climb(restart: int) -> tf.Tensor:
            random = random_start or restart > 0
            start = ball.random(fold(seed, restart)) if random else ball.clean

            def ascend(points: tf.Tensor) -> tf.Tensor:
                _, gradient, _ = loss_and_gradient(model_fn, loss_fn, points, labels, ball.dtype)
                return ball.ascend(points, gradient, size)

            return repeat(ascend, start, num_steps)

        best = climb(0)
        if num_restarts > 1:
            best_wrong, best_loss = _judge(model_fn, loss, best, labels, ball)
            for restart in range(1, num_restarts):
                points = climb(restart)
                wrong, value = _judge(model_fn, loss, points, labels, ball)
                better = (wrong & ~best_wrong) | ((wrong == best_wrong) & (value > best_loss))
                best = tf.where(per_example(better, best), points, best)
                best_wrong, best_loss = best_wrong | wrong, tf.where(better, value, best_loss)
        return ball.inputs(best)

    key = ("pgd", norm, bounds, num_steps, num_restarts, random_start, loss)
    numbers = (as_number(value, pixels.dtype) for value in (epsilon * scale, size))
    found = run_compiled(key, climbs, model_fn, pixels, targets, *numbers, as_seed(seed), labels=classes)
    return tf.stop_gradient(found)


def _judge(
    model_fn: ModelFn, loss: str | LossFn, points: tf.Tensor, labels: Any, ball: Ball
) -> tuple[tf.Tensor, tf.Tensor]:
    """Says whether each point is misclassified (never, where labels may not be classes), and its loss."""
    logits = logits_of(model_fn, ball.inputs(points))
    value = make_loss(loss)(logits, labels)
    if callable(loss):
        return tf.zeros_like(value, tf.bool), value
    return is_wrong(logits, labels), value
