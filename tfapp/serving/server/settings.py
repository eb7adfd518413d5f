"""What a server can be told: where it listens, what it accepts, and how it joins requests into batches."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tfapp.errors import ConfigError
from tfapp.machine import usable_cores
from tfapp.release.manifest import check_sha256

_MOST_BATCHES = 4
"""More batches at once take more memory, and hardly answer more."""


@dataclass(frozen=True)
class Limits:
    """What requests may ask for; beyond it they are refused before anything is computed.

    Attributes:
        body_bytes: Bytes of a request's body, inflated, or of a gRPC message; all that are in flight may hold
            eight times as many (429, RESOURCE_EXHAUSTED).
        rows: Texts or images of a request.
        text_bytes: UTF-8 bytes of a text; the model reads its first ``max_length`` tokens anyway.
        pixels: Pixels of an image; the release's own limit, ``max_pixels``, applies as well.
        waiting_rows: Rows that may wait or be computed at once; further requests are refused as the queue is
            full (429, RESOURCE_EXHAUSTED).
        seconds: Seconds from the end of a body until a request that is not answered is given up (504,
            DEADLINE_EXCEEDED).
        body_seconds: Seconds a client may take to send a request's body (408).
        requests: Requests of REST and calls of gRPC that may be received, computed or answered at once (429,
            RESOURCE_EXHAUSTED); a connection without a request is none, and health is always answered.
    """

    body_bytes: int = 32 << 20
    rows: int = 1024
    text_bytes: int = 1 << 18
    pixels: int = 50_000_000
    waiting_rows: int = 4096
    seconds: float = 30.0
    body_seconds: float = 30.0
    requests: int = 1024


@dataclass(frozen=True)
class Batching:
    """How TensorFlow's batching operator joins requests.

    The fields are those of TensorFlow Serving's ``batching.config``.

    Attributes:
        max_batch_size: Rows of a batch, 1 or more. 1 computes each row by itself.
        batch_timeout_micros: Microseconds that a batch waits for more rows while a thread is free.
        num_batch_threads: Batches computed at once; for what is not joined, runs at once. By default as many
            as there are cores, at most 4: while one is computed the rows of the next need not wait.
        max_enqueued_batches: Batches that may wait in TensorFlow's own queue.
    """

    max_batch_size: int = 32
    batch_timeout_micros: int = 0
    num_batch_threads: int = field(default_factory=lambda: min(usable_cores(), _MOST_BATCHES))
    max_enqueued_batches: int = 1024

    def __post_init__(self) -> None:
        """Refuses sizes that the operator does not take."""
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("num_batch_threads", 1),
            ("max_enqueued_batches", 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: it must be {least} or more.")


@dataclass(frozen=True)
class ServerSettings:
    """Everything that a server is told.

    Attributes:
        release: ``saved_models/<name>``, whose newest version is served and replaced as newer ones appear; or
            a version folder, which is served alone.
        manifest_sha256: The sha256 of that version's ``manifest.json``, printed when it was released; with
            it no other release is served. None for any.
        host: Address to listen at.
        port: Port of REST; 0 takes a free one.
        grpc_port: Port of gRPC; 0 takes a free one, None serves REST alone.
        token: What clients must send as ``Authorization: Bearer <token>``; None for no check.
        tls_certificate: PEM file of the certificate chain; None for plain connections.
        tls_key: PEM file of its key.
        poll_seconds: Seconds between looks for new versions.
        drain_seconds: Seconds that requests in flight get to end when the server stops.
        threads: Cores that a batch is computed on; None for all.
        limits: What requests may ask for.
        batching: Fields of `Batching` that overrule ``serving/batching.config`` beside the versions.
    """

    release: Path
    manifest_sha256: str | None = None
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = 8500
    token: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    poll_seconds: float = 2.0
    drain_seconds: float = 30.0
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    batching: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses settings that are not possible, or contradict each other."""
        Batching(**self.batching)
        if self.manifest_sha256 is not None:
            check_sha256(self.manifest_sha256)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("a certificate and its key belong together: give both, or neither.")
        if self.tls_certificate is not None and self.tls_key is not None:
            _check_certificate(self.tls_certificate, self.tls_key)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token):
            raise ConfigError("the token must be printable ASCII characters, at least one.")


def _check_certificate(certificate: Path, key: Path) -> None:
    try:
        # Without a password nobody is asked for one: a server starts unattended.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(
            f"{certificate} and {key} cannot be used ({error.strerror or error}); give the certificate chain "
            "and its own key, without a password, as PEM files."
        ) from error
