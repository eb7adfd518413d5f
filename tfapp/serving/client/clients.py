"""The two clients: one blocks, the other awaits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tfapp.errors import ConfigError, DataError, TfappError, check_known
from tfapp.serving.client.exchange import FEATURES, Call, Exchange, Failure, Send, Steps
from tfapp.serving.client.target import Target, make_target
from tfapp.serving.features import feature_name, image_bytes, text_bytes
from tfapp.serving.prediction import Prediction

_REQUEST_BYTES = 8_000_000  # after so many, a request is full

Answer = Prediction | TfappError
AnswerType = TypeVar("AnswerType")


@dataclass(frozen=True)
class _Batch:
    """Inputs of one request, and the errors of those that cannot be sent, at their places."""

    encoded: list[bytes]
    names: list[str]
    errors: dict[int, DataError]

    def merge(self, answers: Iterable[Answer]) -> list[Answer]:
        """Puts the answers between the errors."""
        left = iter(answers)
        return [
            self.errors[place] if place in self.errors else next(left)
            for place in range(len(self.encoded) + len(self.errors))
        ]


class _Base:
    """What both clients are told."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | str | None = None,
        classes: Sequence[str] | None = None,
        feature: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        max_in_flight: int = 8,
        token: str | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
    ) -> None:
        for name, value, least in (("retries", retries, 0), ("max_in_flight", max_in_flight, 1)):
            if value < least:
                raise ConfigError(f"{name} = {value}: it must be {least} or more.")
        if not timeout > 0:
            raise ConfigError(f"timeout = {timeout}: it must be more than 0 seconds.")
        if isinstance(classes, str) or (classes is not None and not classes):
            raise ConfigError(f"classes = {classes!r}: give a list of the classes' names, or leave it out.")
        if feature is not None:
            check_known([feature], FEATURES, "feature")
        self._target = make_target(
            url,
            model,
            version=version,
            token=token,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        told = None if classes is None else tuple(classes)
        self._exchange = Exchange(self._target, timeout, retries, feature, told)
        self._max_in_flight = max_in_flight
        self._transport: Any = None

    def _connect(self, rest: str, channel: str) -> Any:
        """Connects on first use; the library of a protocol that is not spoken need not be there."""
        if self._transport is None:
            self._transport = _transport(self._target, rest, channel)(self._target, self._max_in_flight)
        return self._transport

    def _batches(self, features: Iterable[Any], batch_size: int) -> Iterator[_Batch]:
        """Encodes features and cuts them into requests."""
        text = self._exchange.feature == "text"
        batch, size = _Batch([], [], {}), 0
        for number, feature in enumerate(features):
            try:
                encoded = text_bytes(feature, number) if text else image_bytes(feature, number)
            except DataError as error:
                batch.errors[len(batch.encoded) + len(batch.errors)] = error
            else:
                batch.encoded.append(encoded)
                batch.names.append(f"text {number}" if text else feature_name(feature, number))
                size += len(encoded)
            full = len(batch.encoded) + len(batch.errors) == batch_size
            if full or size >= _REQUEST_BYTES:
                yield batch
                batch, size = _Batch([], [], {}), 0
        if batch.encoded or batch.errors:
            yield batch

    def _steps(self, batch: _Batch) -> Steps:
        answers = (yield from self._exchange.classify(batch.encoded, batch.names)) if batch.encoded else []
        return batch.merge(answers)

    def _status(self) -> Steps:
        answer = yield from self._exchange.ask(Call("status"))
        if isinstance(answer, Failure):
            raise self._exchange.error(answer)
        return answer


class Client(_Base):
    """Classifies texts or images on TF Serving or on ``tfapp serve``.

    A request is sent again, after a pause that grows or that the server names, only where the server was not
    reached, or said that it is busy (HTTP 429 and 503, gRPC UNAVAILABLE and RESOURCE_EXHAUSTED). Threads may
    share a client. It needs no TensorFlow.

    Args:
        url: ``"http://host:8501"`` for REST, ``"grpc://host:8500"`` for gRPC; ``https`` and ``grpcs`` with
            TLS.
        model: The model's name on the server, which is that of the release's folder.
        version: A version's number, a label such as ``"stable"``, or None for the newest that is loaded.
        classes: Names of the classes in their order; when None, the server is asked for them once.
        feature: ``"text"`` or ``"image_bytes"``; when None, the server is asked once.
        timeout: Seconds for the answer to a request, all attempts together.
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
        return _all(self.predict_each(features, batch_size=batch_size))

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
        _check_features(features, batch_size)
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


class AsyncClient(_Base):
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
        return _all([answer async for answer in self.predict_each(features, batch_size=batch_size)])

    def predict_each(self, features: Iterable[Any], *, batch_size: int = 32) -> AsyncIterator[Answer]:
        """Classifies texts or images, and goes on after one that cannot be; see `Client.predict_each`."""
        _check_features(features, batch_size)
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


def _transport(target: Target, rest: str, channel: str) -> Any:
    try:
        if target.protocol == "rest":
            from tfapp.serving.client import rest as speaking
        else:
            from tfapp.serving.client import channel as speaking  # type: ignore[no-redef]
    except ImportError as error:
        raise ConfigError(
            f"{target.url} needs the package {error.name}: pip install 'tfapp[client]' installs it."
        ) from error
    return getattr(speaking, rest if target.protocol == "rest" else channel)


def _check_features(features: Any, batch_size: int) -> None:
    if isinstance(features, str | bytes | Path):
        raise DataError("predict takes a list of texts or images: put the single one into a list.")
    if batch_size < 1:
        raise DataError(f"batch_size = {batch_size}: it must be 1 or more.")


def _all(answers: Iterable[Answer]) -> list[Prediction]:
    predictions = []
    for answer in answers:
        if isinstance(answer, TfappError):
            raise answer
        predictions.append(answer)
    return predictions
