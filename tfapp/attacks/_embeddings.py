"""Attacks on embeddings: a budget relative to each example's own norm, padding left out, and the climb."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import Ball, as_number, compute_dtype, norms
from tfapp.attacks._checks import ModelFn, Seed, as_seed
from tfapp.attacks._compiled import repeat, run_compiled
from tfapp.attacks._losses import LossFn, loss_and_gradient, loss_labels, make_loss
from tfapp.errors import DataError


def climb_embeddings(
    model_fn: ModelFn,
    embeddings: Any,
    labels: Any,
    *,
    mask: Any,
    epsilon: Any,
    step_size: Any,
    num_steps: int,
    random_start: bool,
    loss: str | LossFn,
    seed: Seed,
) -> tf.Tensor:
    """Climbs the loss within the ball around each example's embeddings.

    Args:
        model_fn: Embeddings to logits ``(batch, num_classes)``.
        embeddings: Floating point ``(batch, sequence, hidden)``.
        labels: What the loss takes.
        mask: 1 or True at tokens, ``(batch, sequence)``.
        epsilon: Radius as a fraction of the norm of the example's tokens, a scalar or ``(batch,)``.
        step_size: Length of a step in the same unit.
        num_steps: Steps.
        random_start: Whether to start at a random point of the ball.
        loss: What `make_loss` takes.
        seed: Of the random start.

    Returns:
        Embeddings of the same shape and dtype.

    Raises:
        ConfigError: When the loss is unknown.
        DataError: When embeddings, labels or mask cannot be used.
    """
    loss_fn = make_loss(loss)
    values, tokens = as_embeddings(embeddings, mask)
    targets, classes = loss_labels(loss, labels, values)

    def climb(
        model_fn: ModelFn,
        values: tf.Tensor,
        tokens: tf.Tensor,
        labels: Any,
        share: tf.Tensor,
        size: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        ball = embedding_ball(values, tokens, share)
        length = size * token_norms(values, tokens)

        def ascend(points: tf.Tensor) -> tf.Tensor:
            _, gradient, _ = loss_and_gradient(model_fn, loss_fn, points, labels, ball.dtype)
            return ball.ascend(points, gradient, length)

        start = ball.random(seed) if random_start else ball.clean
        return ball.inputs(repeat(ascend, start, num_steps))

    key = ("climb_embeddings", num_steps, random_start, loss)
    numbers = (as_number(value, values.dtype) for value in (epsilon, step_size))
    found = run_compiled(
        key, climb, model_fn, values, tokens, targets, *numbers, as_seed(seed), labels=classes
    )
    return tf.stop_gradient(found)


def as_embeddings(embeddings: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes a batch of embeddings and its mask as tensors.

    Args:
        embeddings: Floating point ``(batch, sequence, hidden)``.
        mask: 1 or True at tokens, ``(batch, sequence)``.

    Returns:
        The embeddings; and the mask ``(batch, sequence, 1)`` in the type in which an attack computes.

    Raises:
        DataError: When one of them has another form, or a value that it cannot have. Inside a `tf.function`
            values are not known and not checked.
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
    if tf.executing_eagerly():
        if not bool(tf.reduce_all(tf.math.is_finite(values))):
            raise DataError("the embeddings hold a number that is not finite.")
        if tokens.dtype != tf.bool and not bool(tf.reduce_all((tokens == 0) | (tokens == 1))):
            raise DataError("the mask holds other values than 0 and 1: expected 1 at tokens, 0 at padding.")
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
