"""A signature of a SavedModel, run in a session: each request by itself, or joined with others."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.serving.features import refusal_text
from tfapp.serving.server.joining import call_of, joined
from tfapp.serving.server.settings import Batching
from tfapp.serving.server.status import FAILED, Code, RequestError

_PLACES = ("Graph execution error", "Detected at node", "<stack traces", "\t", "  ")
_NODE = re.compile(r"\s*\[\[\{\{node .*?\}\}\]\]")
_logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]
_Refused = tuple[Sequence[npt.NDArray[Any]], Future[list[npt.NDArray[Any]]]]


class Signature:
    """One signature of a loaded SavedModel.

    Args:
        definition: Its ``SignatureDef``.
        session: The session that holds the variables.
        batching: How requests are joined.
        alone: Where rows are computed that are not joined; its threads are how many such runs there are at
            once, each of which takes the memory of a batch.
        again: An executor of one thread, where batches that were refused are computed again in parts.
        by_length: Whether texts of similar length are computed together.
        key: A name that no other signature of the process has.
    """

    def __init__(
        self,
        definition: Any,
        session: Any,
        *,
        batching: Batching,
        alone: Executor,
        again: Executor,
        by_length: bool,
        key: str,
    ) -> None:
        self.definition = definition
        self.inputs: dict[str, Any] = {alias: definition.inputs[alias] for alias in sorted(definition.inputs)}
        self.outputs = sorted(definition.outputs)
        self.max_batch_size = batching.max_batch_size
        self._feeds = [definition.inputs[alias].name for alias in self.inputs]
        fetches = [session.graph.get_tensor_by_name(definition.outputs[alias].name) for alias in self.outputs]
        self._alone = alone
        self._again = again
        self._refused: deque[_Refused] = deque()
        self._direct = session.make_callable(fetches, feed_list=self._feeds)
        call = call_of(fetches, self._feeds) if self._rows_fit else None
        self._joined: Any = None
        if call is not None and batching.max_batch_size > 1:
            by_length = by_length and self.of_strings
            outputs = joined(call, fetches, batching, width=len(self._feeds), key=key, by_length=by_length)
            self._joined = session.make_callable(outputs, feed_list=self._feeds)

    @property
    def of_strings(self) -> bool:
        """Whether a row is one string."""
        return [info.dtype for info in self.inputs.values()] == [tf.string.as_datatype_enum]

    @property
    def joins(self) -> bool:
        """Whether requests are joined."""
        return self._joined is not None

    def submit(self, inputs: Sequence[npt.NDArray[Any]], pool: Executor) -> Future[list[npt.NDArray[Any]]]:
        """Computes rows in a thread.

        Args:
            inputs: Arrays in the order of ``self.inputs``; at most ``max_batch_size`` rows.
            pool: Where to wait until the rows have been joined with others and computed.

        Returns:
            What `run` answers or raises.
        """
        return pool.submit(self.run, inputs) if self.joins else self._alone.submit(self._compute, inputs)

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Computes rows; blocks until they are there.

        What another request brought into the batch does not spoil these rows: a batch that is refused is
        computed again in halves, until what is wrong stands by itself.

        Args:
            inputs: Arrays in the order of ``self.inputs``; at most ``max_batch_size`` rows.

        Returns:
            Arrays in the order of ``self.outputs``.

        Raises:
            RequestError: When the model refuses these rows.
        """
        if self._joined is None:
            return self._alone.submit(self._compute, inputs).result()
        try:
            return list(self._joined(*inputs))
        except (tf.errors.InvalidArgumentError, tf.errors.InternalError):
            answer: Future[list[npt.NDArray[Any]]] = Future()
            self._refused.append((inputs, answer))
            self._again.submit(self._compute_refused)
            return answer.result()
        except tf.errors.OpError as error:
            raise refusal(error) from error

    def _compute_refused(self) -> None:
        """Computes those that were refused and wait now: one, and those after it that fit its batch."""
        batch: list[_Refused] = []
        rows = 0
        while self._refused and (not batch or rows + len(self._refused[0][0][0]) <= self.max_batch_size):
            batch.append(self._refused.popleft())
            rows += len(batch[-1][0][0])
        if batch:  # else an earlier call has taken them along
            self._settle(batch)

    def _settle(self, batch: Sequence[_Refused]) -> None:
        try:
            columns = zip(*(inputs for inputs, _answer in batch), strict=True)
            outputs = self._compute([np.concatenate(column) for column in columns])
        except Exception as error:
            # Whatever it is, somebody waits for it.
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                half = len(batch) // 2
                self._settle(batch[:half])
                self._settle(batch[half:])
            return
        start = 0
        for inputs, answer in batch:
            end = start + len(inputs[0])
            answer.set_result([output[start:end] for output in outputs])
            start = end

    def _compute(self, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        try:
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

    @property
    def _rows_fit(self) -> bool:
        """Whether rows of any requests have the same shape."""
        for info in self.inputs.values():
            sizes = [dimension.size for dimension in info.tensor_shape.dim]
            if info.tensor_shape.unknown_rank or sizes[:1] != [-1] or -1 in sizes[1:]:
                return False
        return True


def refusal(error: tf.errors.OpError) -> RequestError:
    """Turns an error of TensorFlow into that of a request.

    Args:
        error: What the session raised.

    Returns:
        The error, with the model's own words and without the traceback of its graph. What is wrong with the
        server and not with the request is told to the log alone.
    """
    words = words_of(error)
    if isinstance(error, tf.errors.InvalidArgumentError | tf.errors.OutOfRangeError):
        return RequestError(Code.INVALID_ARGUMENT, words)
    if isinstance(error, tf.errors.UnavailableError | tf.errors.ResourceExhaustedError):
        return RequestError(Code.RESOURCE_EXHAUSTED, words)
    _logger.error("the model failed at a request: %s", words)
    return RequestError(Code.INTERNAL, FAILED)


def words_of(error: tf.errors.OpError) -> str:
    """Finds what an operator said in an error that also tells where in the graph it stands.

    Args:
        error: What TensorFlow raised.

    Returns:
        One line.
    """
    message = str(error.message)
    if "assertion failed" in message:
        return refusal_text(error)
    message = _NODE.sub("", message)
    said = [line for line in message.splitlines() if line.strip() and not line.startswith(_PLACES)]
    return said[0] if said else "the model cannot compute this"
