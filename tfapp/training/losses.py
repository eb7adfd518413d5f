"""Losses over logits and labels: class indices, or distributions over the classes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfapp.errors import ConfigError, nearest

LOSSES = ("cross_entropy", "focal")
_LEAST_REST = 1e-12


@keras.saving.register_keras_serializable("tfapp")
class ClassificationLoss(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of softmax logits, focal and smoothed where asked.

    Args:
        gamma: Focusing exponent, 0 or more; 0 is plain cross-entropy.
        label_smoothing: Share of a label spread over all classes, 0 up to 1.
        name: Name of the loss.
        **kwargs: What `keras.losses.Loss` takes.

    Reference:
        Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002; Szegedy et al. 2016,
        Rethinking the Inception Architecture, arXiv:1512.00567 (label smoothing).
    """

    def __init__(
        self,
        gamma: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "classification_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each row.

        Args:
            y_true: Class indices ``(batch,)`` or ``(batch, 1)``, or distributions ``(batch, num_classes)``.
            y_pred: Logits ``(batch, num_classes)``.

        Returns:
            float32 ``(batch,)``.
        """
        logits = tf.cast(y_pred, tf.float32)
        plain = not self.gamma and not self.label_smoothing
        num_classes = tf.shape(logits)[-1]
        if are_distributions(y_true):
            targets = tf.cast(y_true, tf.float32)
            if plain:
                return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            labels = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
            if plain:
                return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            targets = tf.one_hot(labels, num_classes)
        smooth = self.label_smoothing
        targets = targets * (1.0 - smooth) + smooth / tf.cast(num_classes, tf.float32)
        log_probabilities = tf.nn.log_softmax(logits)
        if self.gamma:
            # The lower bound keeps the gradient finite at probability 1 for exponents below 1.
            rest = tf.maximum(-tf.math.expm1(log_probabilities), _LEAST_REST)
            targets = targets * tf.pow(rest, self.gamma)
        return -tf.reduce_sum(targets * log_probabilities, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal loss."""
        return {**super().get_config(), "gamma": self.gamma, "label_smoothing": self.label_smoothing}


def are_distributions(labels: Any) -> bool:
    """Tells distributions ``(batch, num_classes)`` from class indices ``(batch,)`` or ``(batch, 1)``."""
    return len(labels.shape) == 2 and labels.shape[-1] != 1


def make_loss(loss: str, *, focal_gamma: float = 2.0, label_smoothing: float = 0.0) -> ClassificationLoss:
    """Makes a loss by name.

    Args:
        loss: ``"cross_entropy"`` or ``"focal"``.
        focal_gamma: Focusing exponent of the focal loss, 0 or more.
        label_smoothing: Share of a label spread over all classes, 0 up to 1.

    Returns:
        The loss.

    Raises:
        ConfigError: When the name is unknown or a number is out of range.
    """
    if loss not in LOSSES:
        raise ConfigError(f"unknown loss {loss!r}; {nearest(loss, LOSSES)}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(f"label_smoothing = {label_smoothing}: it must be at least 0 and less than 1.")
    if not 0.0 <= focal_gamma < float("inf"):
        raise ConfigError(f"focal_gamma = {focal_gamma}: it must be 0 or more.")
    return ClassificationLoss(focal_gamma if loss == "focal" else 0.0, label_smoothing)
