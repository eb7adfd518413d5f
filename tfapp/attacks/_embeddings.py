"""The budget of attacks on embeddings: relative to each example's own norm, padding left out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, compute_dtype, norms
from tfapp.errors import DataError


def embedding_ball(embeddings: Any, mask: Any, epsilon: Any) -> tuple[Ball, tf.Tensor]:
    """Builds the ball around each example's embeddings.

    Args:
        embeddings: Floating point ``(batch, sequence, hidden)``.
        mask: 1 or True at tokens, ``(batch, sequence)``.
        epsilon: Radius as a fraction of the Euclidean norm of the example's own tokens.

    Returns:
        The ball, and the norm of each example's tokens, ``(batch,)``.

    Raises:
        DataError: When embeddings or mask have another form.
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
    kept = tf.cast(tokens, compute_dtype(values.dtype))[:, :, tf.newaxis]
    length = norms(tf.cast(values, kept.dtype) * kept)
    return Ball(values, epsilon * length, norm="l2", mask=kept), length
