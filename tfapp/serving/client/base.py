"""What both clients have in common: their arguments, and inputs cut into requests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfapp.errors import ConfigError, DataError, TfappError, check_known
from tfapp.serving.client.exchange import FEATURES, Call, Exchange, Failure, Steps
from tfapp.serving.client.target import Target, make_target
from tfapp.serving.features import feature_name, image_bytes, text_bytes
from tfapp.serving.prediction import Prediction

_REQUEST_BYTES = 8_000_000  # after so many, a request is full

Answer = Prediction | TfappError


@dataclass(frozen=True)
class Batch:
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


class BaseClient:
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
        self._connecting = threading.Lock()

    def _connect(self, rest: str, channel: str) -> Any:
        """Connects on first use; the library of a protocol that is not spoken need not be there."""
        with self._connecting:
            if self._transport is None:
                self._transport = _transport(self._target, rest, channel)(self._target, self._max_in_flight)
            return self._transport

    def _batches(self, features: Iterable[Any], batch_size: int) -> Iterator[Batch]:
        """Encodes features and cuts them into requests."""
        text = self._exchange.feature == "text"
        batch, size = Batch([], [], {}), 0
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
                batch, size = Batch([], [], {}), 0
        if batch.encoded or batch.errors:
            yield batch

    def _steps(self, batch: Batch) -> Steps:
        answers = (yield from self._exchange.classify(batch.encoded, batch.names)) if batch.encoded else []
        return batch.merge(answers)

    def _status(self) -> Steps:
        answer = yield from self._exchange.ask(Call("status"))
        if isinstance(answer, Failure):
            raise self._exchange.error(answer)
        return answer


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


def check_features(features: Any, batch_size: int) -> None:
    """Refuses a single input, and batches of none.

    Args:
        features: What is to be classified.
        batch_size: Most texts or images of a request.

    Raises:
        DataError: When it is so.
    """
    if isinstance(features, str | bytes | Path):
        raise DataError("predict takes a list of texts or images: put the single one into a list.")
    if batch_size < 1:
        raise DataError(f"batch_size = {batch_size}: it must be 1 or more.")


def all_predictions(answers: Iterable[Answer]) -> list[Prediction]:
    """Gathers predictions.

    Args:
        answers: Predictions and errors.

    Returns:
        The predictions.

    Raises:
        TfappError: The first error among them.
    """
    predictions = []
    for answer in answers:
        if isinstance(answer, TfappError):
            raise answer
        predictions.append(answer)
    return predictions
