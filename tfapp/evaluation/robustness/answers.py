"""What is read off a model's logits: probabilities at its temperature, and gradients that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import softmax  # type: ignore[import-untyped]


def probabilities_of(logits: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    """Computes probabilities in float64.

    Args:
        logits: ``(..., num_classes)``.
        temperature: What they are divided by, positive.

    Returns:
        Of the same shape.
    """
    probabilities: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=-1)
    return probabilities


def without_gradient(model_fn: Any, points: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Tells which rows give the cross-entropy no gradient that an attack could follow.

    Args:
        model_fn: Points to logits ``(batch, num_classes)``.
        points: Where the gradient is taken, ``(batch, ...)``.
        labels: int32 ``(batch,)``.

    Returns:
        bool ``(batch,)``.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model_fn(points))
    gradient = tf.cast(tape.gradient(loss, points, unconnected_gradients="zero"), tf.float32)
    largest = tf.reduce_max(tf.abs(gradient), axis=list(range(1, gradient.shape.rank)))
    # What float32 cannot tell from zero: its smallest normal number, and anything that is no number.
    return ~(largest >= np.finfo(np.float32).tiny)
