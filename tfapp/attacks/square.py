"""A random search with squares that asks the model for nothing but its logits."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._checks import ModelFn, Seed, as_bounds, check_settings, check_sides
from tfapp.attacks._examples import make_examples
from tfapp.attacks._squares import L2Squares, LinfSquares


def square(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_queries: int = 5000,
    seed: Seed = 0,
    batch_size: int = 128,
) -> tf.Tensor:
    """Puts squares of extreme colour at random places and keeps those that lower the margin.

    It takes no gradient, so it breaks models that hide theirs; where it does better than `apgd`, gradients
    are masked. A model outside TensorFlow, such as a LiteRT interpreter, comes in by way of
    `tf.numpy_function` with the shape of its logits set. Weaker than the white-box attacks where gradients
    are sound.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode; logarithms of probabilities do
            as well.
        images: Floating point ``(batch, height, width, channels)`` within ``bounds``.
        labels: Class indices ``(batch,)``; of distributions ``(batch, num_classes)`` the likeliest class.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a scalar tensor.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_queries: How often the model may be asked about an example, at most; the question whether it is
            right about the clean image is not counted.
        seed: Of the places and colours: a whole number, or an int32 tensor ``(2,)``.
        batch_size: How many images are attacked at a time when called eagerly.

    Returns:
        Images of the shape and dtype of ``images``: misclassified ones where they were found, else those of
        the smallest margin. Images that the model gets wrong as they are come back unchanged.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Andriushchenko et al. 2020, Square Attack, arXiv:1912.00049.
    """
    check_settings(epsilon=epsilon, norm=norm, num_queries=num_queries, batch_size=batch_size)
    bounds = as_bounds(bounds)
    check_sides(images, "square")
    examples = make_examples(
        model_fn, images, labels, epsilon=epsilon, bounds=bounds, seed=seed, batch_size=batch_size
    )
    kind = LinfSquares if norm == "linf" else L2Squares
    return examples.attacked_by([(kind(bounds, num_queries - 1), {})], batch_size=batch_size)
