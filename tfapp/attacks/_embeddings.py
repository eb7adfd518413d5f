"""The budget of attacks on embeddings: relative to each example's own norm, padding left out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, compute_dtype, norms
from tfapp.errors import DataError


def as_embeddings(embeddings: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes a batch of embeddings and its mask as tensors.

    Args:
        embeddings: Floating point ``(batch, sequence, hidden)``.
        mask: 1 or True at tokens, ``(batch, sequence)``.

    Returns:
        The embeddings; and the mask ``(batch, sequence, 1)`` in the type in which an attack computes.

    Raises:
        DataError: When one of them has another form.
    """
    values, tokens = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(mask)
    if not values.dtype.is_floating or values.shape.rank != 3:
        raise DataError(
            f"the embeddings are {values.dtype.name} of the shape {values.shape}: expected floats of shape "
            "(batch, sequence, hidden)."
        )
    if tokens.shape.rank != 2 or not tokens.shape.is_compatible_with(values.shape[:2]):
        raise DataError(
            f"the mask has the shape {tokens.shape}, the embeddings {values.shape}: expected "
            "(batch, sequence) of the embeddings."
        )
    return values, tf.cast(tokens, compute_dtype(values.dtype))[:, :, tf.newaxis]


def token_norms(values: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """Computes the Euclidean norm of each example's tokens, ``(batch,)``.

    Args:
        values: Embeddings ``(batch, sequence, hidden)``.
        tokens: The mask of `as_embeddings`.
    """
    return norms(tf.cast(values, tokens.dtype) * tokens)


def embedding_ball(values: tf.Tensor, tokens: tf.Tensor, share: tf.Tensor) -> Ball:
    """Builds the ball around each example's embeddings.

    Args:
        values: Embeddings ``(batch, sequence, hidden)``.
        tokens: The mask of `as_embeddings`.
        share: Radius as a fraction of `token_norms`.
    """
    return Ball(values, share * token_norms(values, tokens), norm="l2", mask=tokens)
