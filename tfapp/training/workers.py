"""The processes that train one model together, and what they tell one another."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.errors import WorkerLost

_CHUNK = 1 << 24
"""Numbers that are sent at once."""


LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""What TensorFlow raises where another worker has ended."""


def lost_worker(error: tf.errors.OpError) -> WorkerLost:
    """Says what to do where another worker has ended.

    Args:
        error: One of `LOST`.

    Returns:
        The error to raise.
    """
    return WorkerLost(
        "a worker has ended, and the others cannot train without it: see its own log, and start them all "
        "again with the same command; training goes on from the last checkpoint. TensorFlow says: "
        f"{' '.join(error.message.split())[:300]}"
    )


class Workers:
    """The workers of a strategy: several of ``multi_worker``, else one, which is the chief.

    All of them must call the same of these functions in the same order.

    Args:
        strategy: The strategy that trains.

    Attributes:
        count: How many there are.
        index: Which of them this process is; 0 is the chief, who alone writes files.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.count, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            cluster = resolver.cluster_spec().as_dict()
            chiefs = len(cluster.get("chief", ()))
            self.count = chiefs + len(cluster.get("worker", ()))
            self.index = resolver.task_id + (0 if resolver.task_type == "chief" else chiefs)
            self._total = _summing(strategy, strategy.num_replicas_in_sync // self.count)

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.index == 0

    def bytes_from_chief(self, payload: bytes) -> bytes:
        """Sends bytes from the chief to all.

        Args:
            payload: What the chief has to say; that of the others is ignored.

        Returns:
            What the chief said.
        """
        if not self.several:
            return payload
        said = payload if self.chief else b""
        length = self._sum(np.array([len(said) >> 31, len(said) & 0x7FFFFFFF], np.int32))
        size = (int(length[0]) << 31) + int(length[1])
        words = np.zeros(-(-size // 4), np.int32)
        words.view(np.uint8)[: len(said)] = np.frombuffer(said, np.uint8)
        parts = [self._sum(words[start : start + _CHUNK]) for start in range(0, len(words), _CHUNK)]
        return b"".join(part.tobytes() for part in parts)[:size]

    def from_chief(self, value: Any) -> Any:
        """Sends a JSON value from the chief to all.

        Args:
            value: What the chief has to say; that of the others is ignored.

        Returns:
            What the chief said.
        """
        return json.loads(self.bytes_from_chief(json.dumps(value).encode()))

    def who(self, condition: bool) -> list[int]:
        """Tells of which workers something is true.

        Args:
            condition: Whether it is true of this one.

        Returns:
            Their numbers, in ascending order.
        """
        if not self.several:
            return [self.index] if condition else []
        said = np.zeros(self.count, np.int32)
        said[self.index] = condition
        return [int(index) for index in np.flatnonzero(self._sum(said))]

    def _sum(self, values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        try:
            summed: npt.NDArray[np.int32] = self._total(tf.constant(values)).numpy()
        except LOST as error:
            raise lost_worker(error) from error
        return summed


def shared_batches(make: Callable[[tuple[int, int]], tf.data.Dataset]) -> Any:
    """Lets each of several workers make its own part of every batch, and nothing else.

    Args:
        make: Makes the batches of a part, ``(number, parts)``; of ``(0, 1)`` the whole ones.

    Returns:
        What Keras's `fit` takes under the strategy that is in force.
    """
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return make((0, 1))  # Keras splits them among the replicas

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = strategy.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local
        parts = [make((first + replica, replicas)) for replica in range(local)]
        return tf.data.Dataset.choose_from_datasets(parts, tf.data.Dataset.range(local).repeat())

    return strategy.distribute_datasets_from_function(of_worker)


def _summing(strategy: tf.distribute.Strategy, local: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function that adds up what the workers give, of whom each has ``local`` replicas."""

    def of_replica(values: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group % local, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, values, 0))

    def total(values: tf.Tensor) -> tf.Tensor:
        summed = strategy.run(of_replica, args=(values,))
        return strategy.experimental_local_results(summed)[0]

    compiled: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        total, input_signature=[tf.TensorSpec([None], tf.int32)], autograph=False
    )
    return compiled
