"""What one of several workers asks of all: to stop, or to write a checkpoint, after the same step."""

from __future__ import annotations

import tensorflow as tf


class Requests:
    """Requests that travel with a number that a step adds up over all workers anyway.

    Args:
        strategy: The strategy that trains; of those on one machine nothing travels.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._travel = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        if self._travel:
            self._own, self._heard = (
                tf.Variable(
                    tf.zeros(2),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )
                for _ in range(2)
            )

    def make(self, *, stop: bool, save: bool) -> None:
        """Sets what this worker asks for from the next step on.

        Args:
            stop: To end the run.
            save: To write a checkpoint.
        """
        self._own.assign([float(stop), float(save)])

    def heard(self) -> tuple[bool, bool]:
        """Whether any worker asked to stop, and to write a checkpoint, when the last step began."""
        stop, save = self._heard.read_value().numpy() > 0
        return bool(stop), bool(save)

    def summed_with(self, number: tf.Tensor) -> tf.Tensor:
        """Adds up a number over all replicas, and what is asked for with it; to be called in a step.

        Args:
            number: Of this replica, a float32 scalar.

        Returns:
            The sum, a float32 scalar.
        """
        context = tf.distribute.get_replica_context()
        if not self._travel:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, number)
        summed = context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.concat([number[tf.newaxis], self._own.read_value()], axis=0)
        )
        self._heard.assign(summed[1:])
        return summed[0]
