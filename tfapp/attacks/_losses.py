"""What an attack maximises: one number an example, from logits and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from tfapp.attacks._checks import ModelFn, as_labels, check_rows
from tfapp.errors import ConfigError, DataError, nearest

LossFn: TypeAlias = Callable[[tf.Tensor, Any], tf.Tensor]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of each example.

    Args:
        logits: ``(batch, num_classes)``.
        labels: int32 ``(batch,)`` or float32 distributions ``(batch, num_classes)``.

    Returns:
        ``(batch,)``.
    """
    if labels.shape.rank == 2:
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes how far the best wrong class is above the true one; positive when the answer is wrong.

    Args:
        logits: ``(batch, num_classes)``.
        labels: As for `cross_entropy`; of a distribution the likeliest class counts.

    Returns:
        ``(batch,)``.
    """
    truth = tf.one_hot(class_indices(labels), tf.shape(logits)[1], dtype=logits.dtype)
    true = tf.reduce_sum(tf.where(truth > 0, logits, tf.zeros_like(logits)), axis=1)
    return tf.reduce_max(tf.where(truth > 0, logits.dtype.min, logits), axis=1) - true


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Computes the difference of logits ratio: `margin` over the gap of the largest and third largest logit.

    Unlike cross-entropy it neither changes when logits are scaled nor loses its gradient on sure answers.

    Args:
        logits: ``(batch, num_classes)``, at least three classes.
        labels: As for `margin`.

    Returns:
        ``(batch,)``.

    Reference:
        Croce and Hein 2020, Reliable evaluation of adversarial robustness, arXiv:2003.01690.
    """
    top = tf.math.top_k(logits, 3).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes the targeted difference of logits ratio, which rises as the target overtakes the true class.

    Args:
        logits: ``(batch, num_classes)``, at least four classes.
        labels: int32 ``(batch,)``.
        targets: int32 ``(batch,)``, the class to reach.

    Returns:
        ``(batch,)``.

    Reference:
        Croce and Hein 2020, arXiv:2003.01690.
    """
    top = tf.math.top_k(logits, 4).values
    gap = top[:, 0] - (top[:, 2] + top[:, 3]) / 2.0
    return logit_difference(logits, labels, targets) / (gap + 1e-12)


def cross_entropy_targeted(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes the log-probability of a target, for models with too few classes for `dlr_targeted`.

    Args:
        logits: ``(batch, num_classes)``.
        labels: Unused; taken as by `dlr_targeted`.
        targets: int32 ``(batch,)``, the class to reach.

    Returns:
        ``(batch,)``.
    """
    return -cross_entropy(logits, targets)


def logit_difference(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Computes how far a target's logit is above that of the true class, ``(batch,)``.

    Args:
        logits: ``(batch, num_classes)``.
        labels: int32 ``(batch,)``.
        targets: int32 ``(batch,)``.
    """
    return tf.gather(logits, targets, batch_dims=1) - tf.gather(logits, labels, batch_dims=1)


def is_wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Says of each example whether its largest logit is another class's, bool ``(batch,)``.

    Args:
        logits: ``(batch, num_classes)``.
        labels: As for `cross_entropy`.
    """
    return tf.argmax(logits, axis=1, output_type=tf.int32) != class_indices(labels)


TARGETED_LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "cross_entropy": cross_entropy_targeted,
    "dlr": dlr_targeted,
}
LOSSES: dict[str, LossFn] = {"cross_entropy": cross_entropy, "dlr": dlr, "margin": margin}


def make_loss(loss: str | LossFn) -> LossFn:
    """Resolves a loss by name.

    Args:
        loss: A key of `LOSSES`, or a function of logits and labels, which is returned as it is.

    Raises:
        ConfigError: When the name is unknown.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ConfigError(f"unknown loss {loss!r}; {nearest(str(loss), LOSSES)}")
    return LOSSES[loss]


def loss_labels(loss: str | LossFn, labels: Any, inputs: tf.Tensor) -> tuple[Any, tf.Tensor | None]:
    """Takes labels as a loss wants them: checked for those with a name, as they are for a function.

    Args:
        loss: What `make_loss` takes.
        labels: What `as_labels` takes, or what the function takes.
        inputs: What they belong to, ``(batch, ...)``.

    Returns:
        The labels; and the same where they are classes or distributions over classes, else None.

    Raises:
        DataError: When they have another form, or are of another number than the inputs.
    """
    if callable(loss):
        return labels, None
    given = as_labels(labels)
    check_rows(inputs, given)
    return given, given


def class_indices(labels: tf.Tensor) -> tf.Tensor:
    """Gives class indices of what `as_labels` answers, int32 ``(batch,)``."""
    return labels if labels.shape.rank == 1 else tf.argmax(labels, axis=1, output_type=tf.int32)


def logits_of(model_fn: ModelFn, inputs: tf.Tensor) -> tf.Tensor:
    """Asks the model, and answers float32 (float64 for a float64 model) logits ``(batch, num_classes)``.

    Raises:
        DataError: When the model answers something else than logits of a batch.
    """
    logits = tf.convert_to_tensor(model_fn(inputs))
    if logits.shape.rank not in (2, None):
        raise DataError(
            f"the model answers the shape {tuple(logits.shape)}: an attack needs logits (batch, num_classes)."
        )
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def loss_and_gradient(
    model_fn: ModelFn, loss_fn: LossFn, points: tf.Tensor, labels: Any, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes loss and gradient of each example in one pass through the model.

    Args:
        model_fn: Inputs to logits.
        loss_fn: What is differentiated; examples do not influence each other.
        points: Inputs ``(batch, ...)``.
        labels: What the loss takes.
        dtype: In which the model takes its inputs.

    Returns:
        The loss ``(batch,)``, its gradient with the points' shape, and the logits ``(batch, num_classes)``.
    """
    # Variables are not watched: only the gradient at the inputs is computed.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        logits = logits_of(model_fn, tf.cast(points, dtype))
        loss = loss_fn(logits, labels)
    return loss, tape.gradient(loss, points, unconnected_gradients="zero"), logits
