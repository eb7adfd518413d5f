"""What both protocols share: a request's tensors are checked, queued, joined with others and computed."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        self._aside = ThreadPoolExecutor(_ASIDE, thread_name_prefix="tfapp-aside")

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
        *,
        seconds: float | None = None,
    ) -> Arrays:
        """Computes the outputs of a request.

        Args:
            model: The model, leased by the caller.
            signature: Its signature.
            inputs: Arrays by name, the rows of the request along their first dimension.
            seconds: How long the client still waits, where it says so; 0 or less when it has given up.

        Returns:
            Arrays by name.

        Raises:
            RequestError: When the request is refused or not answered in time.
        """
        limits = self.settings.limits
        shapes = {alias: described(array) for alias, array in inputs.items()}
        rows = check_tensors(model, signature, shapes, limits)
        most = limits.seconds if seconds is None else min(limits.seconds, seconds)
        if most <= 0:
            raise _late(most)
        with self._work(model, rows) as work:
            started = time.perf_counter()
            try:
                async with asyncio.timeout(most):
                    await self._check_features(work, model, signature, inputs)
                    parts = _parts(signature, inputs, rows)
                    futures = [signature.submit(values, self._pool) for _places, values in parts]
                    answers = await work.results(futures)
            except TimeoutError as error:
                raise _late(most) from error
        self.metrics.computed(rows, time.perf_counter() - started)
        if len(answers) == 1:
            return signature.named(answers[0])
        places = [places for places, _values in parts]
        return signature.named(_assembled(list(zip(places, answers, strict=True)), rows))

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
        return await asyncio.get_running_loop().run_in_executor(self._aside, call, *arguments)

    @contextlib.contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Lets a request in, and counts it and the memory of its body while it is received and answered.

        What was let in is answered, also when the server is told to end meanwhile. All bodies together may
        take eight times ``body_bytes`` of the limits.

        Yields:
            What is called with the bytes that have come; it raises RequestError when they are too many.

        Raises:
            RequestError: When the server is ending, or too many requests are open.
        """
        if self.draining:
            raise RequestError(Code.UNAVAILABLE, "the server is shutting down")
        if self.requests >= self.settings.limits.requests:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED, f"{self.requests} requests are in flight already; try again"
            )
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if self.body_bytes + count > _BODIES * self.settings.limits.body_bytes:
                raise RequestError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the requests in flight hold {self.body_bytes} bytes already; try again",
                )
            held += count
            self.body_bytes += count

        self.requests += 1
        try:
            yield take
        finally:
            self.requests -= 1
            self.body_bytes -= held

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
        for pool in (self._pool, self._aside):
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
            await work.results([self._aside.submit(check_features, model, signature, inputs, limits)])


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
