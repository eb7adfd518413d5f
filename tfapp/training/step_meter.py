"""What a step counts about itself: rows, tokens, and how long it stood still until its batch was there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf


class StepMeter:
    """Counts within the train step, where one call of Keras runs many.

    The time of a step's end is kept until the next batch has arrived: in between, the step has nothing to
    compute. Where a call of Keras ends in between, that holds its callbacks too, and `Pace` takes them out
    again. On several replicas each counts for itself; values are read from this process's alone.
    """

    def __init__(self) -> None:
        self._tells_time = _has_clock()
        self._sums = _own_of_each_replica([0.0, 0.0, 0.0])
        self._ended = _own_of_each_replica(0.0)

    def arrived(self, inputs: Any, labels: Any) -> tf.Tensor:
        """Counts a batch; stands under control dependencies on it.

        Args:
            inputs: Its inputs; real tokens are counted by their ``padding_mask`` ``(batch, sequence)``.
            labels: Its labels ``(batch, ...)``.

        Returns:
            When it was there, a scalar that the step's computation waits for.
        """
        now = self._time()
        waited = tf.where(self._ended > 0.0, tf.maximum(now - self._ended, 0.0), 0.0)
        rows = tf.cast(tf.shape(labels)[0], tf.float64)
        mask = inputs.get("padding_mask") if isinstance(inputs, Mapping) else None
        tokens = tf.constant(0.0, tf.float64) if mask is None else tf.cast(tf.reduce_sum(mask), tf.float64)
        self._sums.assign_add(tf.stack([waited, rows, tokens]))
        return now

    def ended(self, result: Any, changed: Iterable[Any]) -> None:
        """Notes the time when a step has ended.

        Args:
            result: A tensor that the step has computed.
            changed: Keras variables that it changes; whatever looks at them waits for their last change.
        """
        looked = [tf.raw_ops.VarIsInitializedOp(resource=variable.value.handle) for variable in changed]
        with tf.control_dependencies(looked):  # cheaper than to read them
            marker = tf.identity(result)
        # A copy on the host is there when the device has computed what it copies, not when it was told to.
        with tf.device("CPU:0"), tf.control_dependencies([tf.identity(marker)]):
            self._ended.assign(self._time())

    def ended_at(self) -> float:
        """When the last step ended, in seconds since 1970; 0 before the first one has."""
        return float(self._of_replicas(self._ended)[0])

    def read(self) -> tuple[float | None, float, float]:
        """Seconds of standing still (of the first replica), rows and real tokens (of all of this process).

        The seconds are None under TensorFlow's `enable_op_determinism`, where no op may ask the time.
        """
        each = self._of_replicas(self._sums)
        waited = float(each[0][0]) if self._tells_time else None
        return waited, float(sum(sums[1] for sums in each)), float(sum(sums[2] for sums in each))

    def _time(self) -> tf.Tensor:
        """Seconds since 1970, float64; 0 where no op may ask."""
        with tf.device("CPU:0"):
            return tf.timestamp() if self._tells_time else tf.constant(0.0, tf.float64)

    def _of_replicas(self, variable: tf.Variable) -> list[Any]:
        return [each.numpy() for each in tf.distribute.get_strategy().experimental_local_results(variable)]


def _own_of_each_replica(value: Any) -> tf.Variable:
    return tf.Variable(
        value,
        dtype=tf.float64,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _has_clock() -> bool:
    try:
        tf.timestamp()
    except tf.errors.FailedPreconditionError:
        return False
    return True
