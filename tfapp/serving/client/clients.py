"""The two clients: one blocks, the other awaits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tfapp.serving.client.base import Answer, BaseClient, all_predictions, check_features
from tfapp.serving.client.exchange import Send, Steps
from tfapp.serving.prediction import Prediction


class Client(BaseClient):
    """Classifies texts or images on TF Serving or on ``tfapp serve``.

    A request is sent again, after a pause that grows or that the server names, only where the server was not
    reached, or said that it is busy: HTTP 429 and 503, gRPC RESOURCE_EXHAUSTED, and gRPC UNAVAILABLE where it
    comes with a time to ask again or in the words of a full queue, of a server that ends, or of a proxy
    (Envoy's) that reached no server. Every 503 counts, also that of a proxy whose server may have been at
    work: over REST a request may be computed twice, which changes no answer. Threads may share a client. It
    needs no TensorFlow.

    Args:
        url: ``"http://host:8501"`` for REST, ``"grpc://host:8500"`` for gRPC; ``https`` and ``grpcs`` with
            TLS.
        model: The model's name on the server, which is that of the release's folder.
        version: A version's number, a label such as ``"stable"``, or None for the newest that is loaded.
        classes: Names of the classes in their order; when None, the server is asked for them once.
        feature: ``"text"`` or ``"image_bytes"``; when None, the server is asked once.
        timeout: Seconds for the answer to a request, all attempts together. `AsyncClient` and gRPC keep it.
            `Client` over REST limits each wait to what was left when its step began (connecting, sending, the
            answer's head, its body), and gives up a body that still comes by then. One that stalls takes up
            to twice as long; a server that takes the request or sends the head in drops, a host with several
            addresses or a slow look-up of its name longer.
        retries: How often a request is sent again at most.
        max_in_flight: Requests under way at once.
        token: A bearer token that the server wants.
        ca_file: Certificates (PEM) that the server is checked by; the system's when None.
        cert_file: This client's own certificate (PEM), where the server wants one.
        key_file: Its key (PEM).

    Raises:
        ConfigError: An argument is out of range, or the address is none.
    """

    def predict(self, features: Sequence[Any], *, batch_size: int = 32) -> list[Prediction]:
        """Classifies texts or images.

        Args:
            features: Texts; or images as paths of files, as the bytes of files, or as uint8 arrays
                ``(height, width, 3)``. Any number of them.
            batch_size: Most texts or images of a request, 1 or more.

        Returns:
            A prediction for each, in their order.

        Raises:
            DataError: When something is no text or image, or the server refuses it.
            ServingError: When the server does not answer.
        """
        return all_predictions(self.predict_each(features, batch_size=batch_size))

    def predict_each(self, features: Iterable[Any], *, batch_size: int = 32) -> Iterator[Answer]:
        """Classifies texts or images, and goes on after one that cannot be classified.

        Args:
            features: What ``predict`` takes, or an iterator of it, read as far ahead as requests are sent.
            batch_size: Most texts or images of a request, 1 or more.

        Returns:
            An iterator of an answer for each, in their order: a prediction; a `DataError` that says which
            text or image is refused and why; or a `ServingError` that says why its request has no answer.

        Raises:
            DataError: When a single text or image is given.
            ServingError: When the server cannot be reached, lacks the model, or it is none of tfapp's.
        """
        check_features(features, batch_size)
        return self._answers(features, batch_size)

    def versions(self) -> dict[int, str]:
        """Asks which versions of the model the server has.

        Returns:
            For each version its state, such as ``"LOADING"`` or ``"AVAILABLE"``.

        Raises:
            ServingError: When the server does not answer, or lacks the model.
        """
        found: dict[int, str] = self._run(self._status())
        return found

    def close(self) -> None:
        """Closes all connections; using the client again opens new ones."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self, features: Iterable[Any], batch_size: int) -> Iterator[Answer]:
        self._run(self._exchange.learn())
        batches = self._batches(features, batch_size)
        first = list(itertools.islice(batches, 2))
        if len(first) < 2:
            for batch in first:
                yield from self._run(self._steps(batch))
            return
        with ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="tfapp-client") as pool:
            waiting: deque[Future[list[Answer]]] = deque()
            try:
                for batch in itertools.chain(first, batches):
                    waiting.append(pool.submit(self._run, self._steps(batch)))
                    if len(waiting) == self._max_in_flight:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _run(self, steps: Steps) -> Any:
        transport = self._connect("RestTransport", "GrpcTransport")
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Send):
                outcome = transport.send(step.call, step.timeout)
            else:
                time.sleep(step.seconds)


class AsyncClient(BaseClient):
    """Classifies texts or images on a server without blocking the event loop; otherwise as `Client`.

    Args:
        url: See `Client`.
        model: See `Client`.
        version: See `Client`.
        classes: See `Client`.
        feature: See `Client`.
        timeout: See `Client`.
        retries: See `Client`.
        max_in_flight: See `Client`.
        token: See `Client`.
        ca_file: See `Client`.
        cert_file: See `Client`.
        key_file: See `Client`.
    """

    async def predict(self, features: Sequence[Any], *, batch_size: int = 32) -> list[Prediction]:
        """Classifies texts or images; see `Client.predict`."""
        return all_predictions(
            [answer async for answer in self.predict_each(features, batch_size=batch_size)]
        )

    def predict_each(self, features: Iterable[Any], *, batch_size: int = 32) -> AsyncIterator[Answer]:
        """Classifies texts or images, and goes on after one that cannot be; see `Client.predict_each`."""
        check_features(features, batch_size)
        return self._answers(features, batch_size)

    async def versions(self) -> dict[int, str]:
        """Asks which versions of the model the server has; see `Client.versions`."""
        found: dict[int, str] = await self._run(self._status())
        return found

    async def close(self) -> None:
        """Closes all connections."""
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answers(self, features: Iterable[Any], batch_size: int) -> AsyncIterator[Answer]:
        await self._run(self._exchange.learn())
        batches = self._batches(features, batch_size)
        waiting: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            # Files are read in a thread.
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                waiting.append(asyncio.create_task(self._run(self._steps(batch))))
                if len(waiting) == self._max_in_flight:
                    for answer in await waiting.popleft():
                        yield answer
            while waiting:
                for answer in await waiting.popleft():
                    yield answer
        finally:
            for task in waiting:
                task.cancel()

    async def _run(self, steps: Steps) -> Any:
        transport = self._connect("AsyncRestTransport", "AsyncGrpcTransport")
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Send):
                outcome = await transport.send(step.call, step.timeout)
            else:
                await asyncio.sleep(step.seconds)
