"""How far the answers at two points are apart."""

from __future__ import annotations

import tensorflow as tf


def divergence(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The Kullback-Leibler divergence of the second answers from the first, ``KL(first || second)``.

    Args:
        logits: float32 ``(batch, num_classes)``.
        others: The same.

    Returns:
        float32 ``(batch,)``, in nats.
    """
    ours, theirs = tf.nn.log_softmax(logits), tf.nn.log_softmax(others)
    return tf.reduce_sum(tf.exp(ours) * (ours - theirs), axis=-1)


def symmetric_divergence(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The sum of both Kullback-Leibler divergences, in nats, float32 ``(batch,)``."""
    return divergence(logits, others) + divergence(others, logits)
