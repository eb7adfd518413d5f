"""What both protocols share: a request's tensors are checked, queued, joined with others and computed."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfapp.serving.server.loaded import DEFAULT_SIGNATURE, LoadedModel
from tfapp.serving.server.metrics import Metrics
from tfapp.serving.server.request_checks import check_features, check_tensors
from tfapp.serving.server.settings import ServerSettings
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import Code, RequestError, invalid
from tfapp.serving.server.tensors import described
from tfapp.serving.server.versions import Versions
from tfapp.serving.server.work import Work

_LARGE = 1 << 18
_THREADS = 64
_ASIDE = 2
_BODIES = 8

Value = TypeVar("Value")
Part = tuple[npt.NDArray[np.int64], list[npt.NDArray[Any]]]


class Core:
    """Answers requests of any protocol.

    Args:
        versions: The versions that are served.
        settings: Limits.
        metrics: Where is counted what happens.
    """

    def __init__(self, versions: Versions, settings: ServerSettings, metrics: Metrics) -> None:
        self.versions = versions
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self.requests = 0
        """Requests that are being received or answered."""
        self.waiting = 0
        """Rows that wait or are computed, also those whose answer was given up."""
        self.body_bytes = 0
        """Bytes of requests that are being received or answered."""
        # Each waits in TensorFlow's batching operator; the cores work in TensorFlow's own threads.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="tfapp-serve")
        # Few: what JSON becomes takes many times the memory of its text.
        self.reading = ThreadPoolExecutor(_ASIDE, thread_name_prefix="tfapp-read")
        # Of their own: small images do not wait for large messages.
        self._looking = ThreadPoolExecutor(_ASIDE, thread_name_prefix="tfapp-look")

    @property
    def ready(self) -> bool:
        """Whether requests are welcome."""
        return self.versions.ready and not self.draining

    def signature(self, model: LoadedModel, name: str) -> Signature:
        """Finds a signature of a model.

        Args:
            model: The model.
            name: The name a client gave; empty for the default.

        Returns:
            The signature.

        Raises:
            RequestError: When the model has none of that name.
        """
        wanted = name or DEFAULT_SIGNATURE
        if wanted not in model.signatures:
            raise invalid(f'Serving signature name: "{wanted}" not found in signature def')
        return model.signatures[wanted]

    async def predict(
        self,
        model: LoadedModel,
        signature: Signature,
        inputs: Mapping[str, npt.NDArray[Any]],
    ) -> Arrays:
        """Computes the outputs of a request.

        Args:
            model: The model, leased by the caller.
            signature: Its signature.
            inputs: Arrays by name, the rows of the request along their first dimension.

        Returns:
            Arrays by name.

        Raises:
            RequestError: When the request is refused.
        """
        limits = self.settings.limits
        shapes = {alias: described(array) for alias, array in inputs.items()}
        rows = check_tensors(model, signature, shapes, limits)
        with self._work(model, rows) as work:
            started = time.perf_counter()
            await self._check_features(work, model, signature, inputs)
            parts = _parts(signature, inputs, rows)
            futures = [signature.submit(values, self._pool) for _places, values in parts]
            answers = await work.results(futures)
        self.metrics.computed(rows, time.perf_counter() - started)
        if len(answers) == 1:
            return signature.named(answers[0])
        places = [places for places, _values in parts]
        return signature.named(_assembled(list(zip(places, answers, strict=True)), rows))

    @contextlib.asynccontextmanager
    async def in_time(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Gives a request that has been received up after the seconds of the limits.

        Args:
            seconds: How long the client still waits, where it says so; 0 or less when it has given up.

        Raises:
            RequestError: When the request is not answered in time.
        """
        limit = self.settings.limits.seconds
        most = limit if seconds is None else min(limit, seconds)
        if most <= 0:
            raise _late(most)
        try:
            async with asyncio.timeout(most):
                yield
        except TimeoutError as error:
            raise _late(most) from error

    @contextlib.contextmanager
    def request(self) -> Iterator[Request]:
        """Lets a request in; it is answered, also when the server is told to end meanwhile.

        Yields:
            The request.

        Raises:
            RequestError: When the server is ending, or too many requests are open.
        """
        if self.draining:
            raise RequestError(Code.UNAVAILABLE, "the server is shutting down")
        if self.requests >= self.settings.limits.requests:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED, f"{self.requests} requests are in flight already; try again"
            )
        request = Request(self)
        try:
            yield request
        finally:
            request.leave()

    def knows(self, authorization: bytes) -> bool:
        """Says whether a client sent the token that is asked for.

        Args:
            authorization: The header or metadata of that name; empty when none was sent.

        Returns:
            True also when none is asked for.
        """
        if self.settings.token is None:
            return True
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token, self.settings.token.encode())

    def metrics_page(self) -> str:
        """Writes what was counted, with the state of this moment, in Prometheus' text format."""
        versions = self.versions.states.values()
        newest = self.versions.newest()
        gauges = {
            "tfapp_waiting_rows": ("Rows that wait or are computed.", self.waiting),
            "tfapp_ready": ("Whether requests are welcome.", float(self.ready)),
            "tfapp_served_version": ("The newest version that is served.", newest.version if newest else 0),
            "tfapp_loads": ("Versions loaded since the start.", self.versions.loads),
            "tfapp_refused_versions": (
                "Versions in the folder that cannot be served.",
                sum(bool(state.problem) for state in versions),
            ),
        }
        return self.metrics.page(gauges)

    def close(self) -> None:
        """Ends the threads."""
        for pool in (self._pool, self.reading, self._looking):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _work(self, model: LoadedModel, rows: int) -> Iterator[Work]:
        """Counts a request's rows until the last of its computations has ended."""
        if self.waiting + rows > self.settings.limits.waiting_rows:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{self.waiting} rows wait",
            )

        def ended() -> None:
            self.waiting -= rows
            model.requests -= 1

        self.waiting += rows
        model.requests += 1
        work = Work(ended)
        try:
            yield work
        finally:
            work.leave()

    async def _check_features(
        self,
        work: Work,
        model: LoadedModel,
        signature: Signature,
        inputs: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        limits = self.settings.limits
        if model.feature == "text":
            check_features(model, signature, inputs, limits)
        else:
            await work.result(self._looking, check_features, model, signature, inputs, limits)


class Request:
    """A request that was let in; it and its body count until no thread reads or writes for it any more.

    Args:
        core: Who counts.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._held = 0
        self._work = Work(self._ended)
        core.requests += 1

    def take(self, count: int) -> None:
        """Counts memory of the body; all bodies together may take eight times ``body_bytes`` of the limits.

        Args:
            count: Bytes that have come.

        Raises:
            RequestError: When they are too many.
        """
        if self._core.body_bytes + count > _BODIES * self._core.settings.limits.body_bytes:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                f"the requests in flight hold {self._core.body_bytes} bytes already; try again",
            )
        self._held += count
        self._core.body_bytes += count

    async def aside(self, size: int, call: Callable[..., Value], *arguments: Any) -> Value:
        """Calls what would hold up the event loop in one of few threads, and what would not at once.

        Args:
            size: Bytes that the call reads or writes.
            call: What is called.
            arguments: With what.

        Returns:
            What it answers.
        """
        if size <= _LARGE:
            return call(*arguments)
        return await self._work.result(self._core.reading, call, *arguments)

    def leave(self) -> None:
        """Ends the request, when the threads that are at work for it have ended."""
        self._work.leave()

    def _ended(self) -> None:
        self._core.requests -= 1
        self._core.body_bytes -= self._held


def _late(seconds: float) -> RequestError:
    words = f"the request was not answered within {max(0.0, round(seconds, 3)):g} seconds"
    return RequestError(Code.DEADLINE_EXCEEDED, words)


def _parts(signature: Signature, inputs: Mapping[str, npt.NDArray[Any]], rows: int) -> list[Part]:
    """Splits a request into parts that fit a batch, strings of similar length together."""
    values = [inputs[alias] for alias in signature.inputs]
    size = signature.max_batch_size
    if rows <= size:
        return [(np.arange(rows), values)]
    order = np.arange(rows)
    if signature.of_strings:
        order = np.argsort([len(row) for row in values[0]], kind="stable")
    starts = range(0, rows, size)
    return [
        (order[start : start + size], [value[order[start : start + size]] for value in values])
        for start in starts
    ]


def _assembled(answers: Sequence[Part], rows: int) -> list[npt.NDArray[Any]]:
    outputs = []
    for number, first in enumerate(answers[0][1]):
        output = np.empty((rows, *first.shape[1:]), first.dtype)
        for places, arrays in answers:
            output[places] = arrays[number]
        outputs.append(output)
    return outputs
