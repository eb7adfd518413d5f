"""What is watched during training, over labels of both forms."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfapp.training.losses import are_distributions


def class_indices(labels: Any) -> tf.Tensor:
    """The classes of labels.

    Args:
        labels: Class indices ``(batch,)`` or ``(batch, 1)``, or distributions ``(batch, num_classes)``, of
            which the most likely class counts.

    Returns:
        int32 ``(batch,)``.
    """
    labels = tf.convert_to_tensor(labels)
    if are_distributions(labels):
        return tf.argmax(labels, axis=-1, output_type=tf.int32)
    return tf.cast(tf.reshape(labels, [-1]), tf.int32)


@keras.saving.register_keras_serializable("tfapp")
class Accuracy(keras.metrics.MeanMetricWrapper):  # type: ignore[misc]
    """Share of right answers.

    Args:
        name: Name of the metric.
        **kwargs: What `keras.metrics.Metric` takes.
    """

    def __init__(self, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(_right, name=name, **kwargs)
        self._direction = "up"

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal metric."""
        return {"name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable("tfapp")
class BalancedAccuracy(keras.metrics.Metric):  # type: ignore[misc]
    """Mean recall of the classes that have rows.

    Args:
        num_classes: How many classes there are.
        name: Name of the metric.
        **kwargs: What `keras.metrics.Metric` takes.

    Reference:
        Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution, ICPR.
    """

    def __init__(self, num_classes: int, name: str = "balanced_accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self._direction = "up"
        self.support = self.add_weight(shape=(num_classes,), initializer="zeros", name="support")
        self.hits = self.add_weight(shape=(num_classes,), initializer="zeros", name="hits")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts the rows of each class, and those that were found.

        Args:
            y_true: Labels, as `class_indices` takes them.
            y_pred: Logits or probabilities ``(batch, num_classes)``.
            sample_weight: float32 ``(batch,)``, or None.
        """
        labels = class_indices(y_true)
        rows = tf.one_hot(labels, self.num_classes, dtype=self.dtype)
        if sample_weight is not None:
            rows *= tf.reshape(tf.cast(sample_weight, self.dtype), [-1, 1])
        right = tf.cast(_right(labels, y_pred), self.dtype)
        self.support.assign_add(tf.reduce_sum(rows, axis=0))
        self.hits.assign_add(tf.reduce_sum(rows * right[:, tf.newaxis], axis=0))

    def result(self) -> tf.Tensor:
        """The mean recall so far; 0 before the first row."""
        support, hits = tf.convert_to_tensor(self.support), tf.convert_to_tensor(self.hits)
        recall = tf.math.divide_no_nan(hits, support)
        return tf.math.divide_no_nan(
            tf.reduce_sum(recall), tf.reduce_sum(tf.cast(support > 0.0, support.dtype))
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal metric."""
        return {**super().get_config(), "num_classes": self.num_classes}


def _right(y_true: Any, y_pred: Any) -> tf.Tensor:
    return tf.cast(class_indices(y_true) == tf.argmax(y_pred, axis=-1, output_type=tf.int32), tf.float32)
