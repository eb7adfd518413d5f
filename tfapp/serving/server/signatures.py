"""A signature of a SavedModel, run in a session: each request by itself, or joined with others."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from tfapp.serving.server.settings import Batching
from tfapp.serving.server.status import Code, RequestError

Arrays = dict[str, npt.NDArray[Any]]

LENGTHS = (32, 64, 96, 144, 208, 304, 448, 672, 1024)
"""Bytes up to which texts are joined with each other: padding a short one to a long one is wasted work."""

_CALLS = ("StatefulPartitionedCall", "PartitionedCall")


class Signature:
    """One signature of a loaded SavedModel.

    Args:
        name: Its name.
        definition: Its ``SignatureDef``.
        session: The session that holds the variables.
        batching: How requests are joined.
        by_length: Whether rows are joined with others of their length only.
        key: A name that no other model in this process has, for the queues of the batching operator.
    """

    def __init__(
        self,
        name: str,
        definition: Any,
        session: Any,
        *,
        batching: Batching,
        by_length: bool,
        key: str,
    ) -> None:
        self.name = name
        self.definition = definition
        self.inputs: dict[str, Any] = {alias: definition.inputs[alias] for alias in sorted(definition.inputs)}
        self.outputs = sorted(definition.outputs)
        self.max_batch_size = batching.max_batch_size
        graph = session.graph
        self._feeds = [definition.inputs[alias].name for alias in self.inputs]
        fetches = [graph.get_tensor_by_name(definition.outputs[alias].name) for alias in self.outputs]
        self._direct = session.make_callable(fetches, feed_list=self._feeds)
        self._queues: list[Any] = []
        if batching.max_batch_size > 1 and self._joins(fetches):
            self._queues = [
                session.make_callable(self._joined(fetches, batching, key, number), feed_list=self._feeds)
                for number in range(len(LENGTHS) + 1 if by_length and self.of_strings else 1)
            ]

    @property
    def of_strings(self) -> bool:
        """Whether a row is one string."""
        return [info.dtype for info in self.inputs.values()] == [tf.string.as_datatype_enum]

    @property
    def joins(self) -> bool:
        """Whether requests are joined."""
        return bool(self._queues)

    def queue_of(self, length: int) -> int:
        """Chooses the queue of a row.

        Args:
            length: Its bytes.

        Returns:
            The number of the queue, to be handed to `run`.
        """
        return bisect.bisect_left(LENGTHS, length) if len(self._queues) > 1 else 0

    def run(self, inputs: Sequence[npt.NDArray[Any]], queue: int | None) -> list[npt.NDArray[Any]]:
        """Computes rows; blocks until they are there.

        What another request brought into the batch does not spoil these rows: where a batch is refused, they
        are computed by themselves.

        Args:
            inputs: Arrays in the order of ``self.inputs``.
            queue: What `queue_of` answered, or None to compute them alone.

        Returns:
            Arrays in the order of ``self.outputs``.

        Raises:
            RequestError: When the model refuses these rows.
        """
        try:
            if queue is not None:
                try:
                    return list(self._queues[queue](*inputs))
                except (tf.errors.InvalidArgumentError, tf.errors.InternalError):
                    pass
            return list(self._direct(*inputs))
        except tf.errors.OpError as error:
            raise refusal(error) from error

    def named(self, outputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """Names what `run` answered.

        Args:
            outputs: Arrays in the order of ``self.outputs``.

        Returns:
            They by name.
        """
        return dict(zip(self.outputs, outputs, strict=True))

    def _joins(self, fetches: Sequence[Any]) -> bool:
        """Whether rows of different requests fit together, and the outputs are those of one function."""
        for info in self.inputs.values():
            sizes = [dimension.size for dimension in info.tensor_shape.dim]
            if info.tensor_shape.unknown_rank or sizes[:1] != [-1] or -1 in sizes[1:]:
                return False
        call = fetches[0].op
        firsts = [tensor.name for tensor in call.inputs][: len(self._feeds)]
        return (
            call.type in _CALLS
            and all(tensor.op is call for tensor in fetches)
            and sorted(firsts) == sorted(self._feeds)
        )

    def _joined(self, fetches: Sequence[Any], batching: Batching, key: str, number: int) -> list[Any]:
        """Puts TensorFlow's batching operator before the signature's function."""
        call = fetches[0].op
        count = len(self._feeds)
        with call.graph.as_default():
            outputs = tf.raw_ops.BatchFunction(
                in_tensors=list(call.inputs)[:count],
                captured_tensors=list(call.inputs)[count:],
                f=attr_value_pb2.NameAttrList(name=call.get_attr("f").name),
                num_batch_threads=batching.num_batch_threads,
                max_batch_size=batching.max_batch_size,
                batch_timeout_micros=batching.batch_timeout_micros,
                max_enqueued_batches=batching.max_enqueued_batches,
                Tout=[tensor.dtype for tensor in call.outputs],
                shared_name=key,
                batching_queue=f"{self.name}-{number}",
            )
        return [outputs[tensor.value_index] for tensor in fetches]


def refusal(error: tf.errors.OpError) -> RequestError:
    """Turns an error of TensorFlow into that of a request.

    Args:
        error: What the session raised.

    Returns:
        The error, with the model's own words and without the traceback of its graph.
    """
    from tfapp.serving.features import refusal_text

    if isinstance(error, tf.errors.InvalidArgumentError | tf.errors.OutOfRangeError):
        return RequestError(Code.INVALID_ARGUMENT, refusal_text(error))
    if isinstance(error, tf.errors.UnavailableError | tf.errors.ResourceExhaustedError):
        return RequestError(Code.RESOURCE_EXHAUSTED, str(error.message).splitlines()[0])
    return RequestError(Code.INTERNAL, str(error.message).splitlines()[0])


def input_values(signature: Signature, values: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Puts arrays in the order of a signature's inputs.

    Args:
        signature: The signature.
        values: Arrays by name.

    Returns:
        The arrays.
    """
    return [np.asarray(values[alias]) for alias in signature.inputs]
