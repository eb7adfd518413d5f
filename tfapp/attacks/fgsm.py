"""One step along the sign of the gradient."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, as_number
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, as_images, as_seed, check_settings
from tfapp.attacks._compiled import run_compiled
from tfapp.attacks._losses import LossFn, loss_and_gradient, loss_labels, make_loss


def fgsm(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    random_start: bool = False,
    step_size: float | tf.Tensor | None = None,
    loss: str | LossFn = "cross_entropy",
    seed: Seed = 0,
) -> tf.Tensor:
    """Takes one step of steepest ascent, the fast gradient sign method.

    It costs one gradient at the inputs, which is what makes it the attack to train with. Do not judge a
    model by it: one trained with it can resist this step and nothing else (catastrophic overfitting), and one
    whose gradients are masked resists it without being robust. Use `standard`, or `pgd` at least.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices ``(batch,)``, distributions ``(batch, num_classes)``, or what ``loss`` takes.
        epsilon: Largest change, as a fraction of the range of ``bounds``; of the whole image's Euclidean norm
            under ``"l2"``. A number, or a tensor, scalar or ``(batch,)``.
        norm: ``"linf"`` or ``"l2"``; under ``"l2"`` the step goes along the gradient itself.
        bounds: Lowest and highest value of a pixel.
        random_start: Whether to start at a random point within epsilon.
        step_size: Length of the step in the unit of ``epsilon``, 0 or more; the default is ``epsilon``, and
            1.25 times ``epsilon`` from a random start.
        loss: What to raise: ``"cross_entropy"``, ``"dlr"``, ``"margin"``, or a function of logits and labels
            that answers one number for each example.
        seed: Of the random start: a whole number, or an int32 tensor ``(2,)``.

    Returns:
        Adversarial images of the shape and dtype of ``images``.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Goodfellow et al. 2015, arXiv:1412.6572; with random start: Wong et al. 2020, Fast is better than
        free, arXiv:2001.03994.
    """
    check_settings(epsilon=epsilon, norm=norm, step_size=step_size)
    bounds = as_bounds(bounds)
    loss_fn = make_loss(loss)
    pixels = as_images(images, bounds)
    size = step_size if step_size is not None else epsilon * (1.25 if random_start else 1.0)
    scale = bounds[1] - bounds[0]

    def step(
        model_fn: ModelFn, pixels: tf.Tensor, labels: Any, radius: Any, size: Any, seed: tf.Tensor
    ) -> tf.Tensor:
        ball = Ball(pixels, radius, norm=norm, bounds=bounds)
        start = ball.random(seed) if random_start else ball.clean
        _, gradient, _ = loss_and_gradient(model_fn, loss_fn, start, labels, ball.dtype)
        return ball.inputs(ball.ascend(start, gradient, size))

    key = ("fgsm", norm, bounds, random_start, loss)
    numbers = (as_number(value, pixels.dtype) for value in (epsilon * scale, size * scale))
    targets, classes = loss_labels(loss, labels, pixels)
    found = run_compiled(key, step, model_fn, pixels, targets, *numbers, as_seed(seed), labels=classes)
    return tf.stop_gradient(found)
