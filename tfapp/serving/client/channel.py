"""TF Serving's gRPC interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from tfapp.serving.client.exchange import Call, Failure
from tfapp.serving.client.target import Target
from tfapp.wire.messages import (
    VERSION_STATES,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
)
from tfapp.wire.tensors import read_tensor, string_tensor

_METHODS = {
    "predict": "/tensorflow.serving.PredictionService/Predict",
    "metadata": "/tensorflow.serving.PredictionService/GetModelMetadata",
    "status": "/tensorflow.serving.ModelService/GetModelStatus",
}
_KINDS: dict[grpc.StatusCode, Any] = {
    grpc.StatusCode.INVALID_ARGUMENT: "refused",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.NOT_FOUND: "missing",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
    grpc.StatusCode.DEADLINE_EXCEEDED: "late",
}
# UNAVAILABLE is also what gRPC itself makes of a connection that broke while the server was at work, and only
# words tell the two apart. These are said before anything is sent, or computed.
_UNSENT = (
    "failed to connect",
    "errors resolving",
    "DNS resolution failed",
    # Envoy's, in front of the server; "connection termination" is what it says once the request was sent.
    "no healthy upstream",
    "reset before headers. reset reason: connection failure",
    "reset before headers. reset reason: local connection failure",
    "reset before headers. reset reason: remote connection failure",
)
_UNTOUCHED = ("queue to which this task was submitted is full", "the server is shutting down")
_STREAM_RESET = "RST_STREAM"
_MOST_WORDS = 1000  # characters of a server's message
_NO_LIMIT = -1
_OPTIONS = (
    ("grpc.max_receive_message_length", _NO_LIMIT),
    ("grpc.max_send_message_length", _NO_LIMIT),
    # Attempts are spaced here: gRPC's own pause of a second would make them fail unsent.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class _Codec:
    """Calls as messages, and messages as answers."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.metadata = tuple(target.headers().items())

    def request(self, call: Call) -> bytes:
        """Gives the request's bytes."""
        if call.kind == "predict":
            # All outputs: TF Serving joins only requests for the same ones into batches.
            request = PredictRequest()
            request.model_spec.signature_name = call.signature
            request.inputs[call.input].CopyFrom(string_tensor(call.values))
        elif call.kind == "metadata":
            request = GetModelMetadataRequest(metadata_field=["signature_def"])
        else:
            request = GetModelStatusRequest()
        request.model_spec.name = self._target.model
        if isinstance(self._target.version, int):
            request.model_spec.version.value = self._target.version
        elif self._target.version is not None:
            request.model_spec.version_label = self._target.version
        return bytes(request.SerializeToString())

    def answer(self, call: Call, content: bytes) -> Any:
        """Reads a response's bytes."""
        try:
            if call.kind == "predict":
                outputs = PredictResponse.FromString(content).outputs
                missing = [name for name in call.outputs if name not in outputs]
                if missing:
                    return Failure("failed", f"its answer lacks {', '.join(missing)}")
                return {name: read_tensor(outputs[name]).tolist() for name in call.outputs}
            if call.kind == "status":
                rows = GetModelStatusResponse.FromString(content).model_version_status
                return {row.version: VERSION_STATES.get(row.state, "UNKNOWN") for row in rows}
            packed = GetModelMetadataResponse.FromString(content).metadata["signature_def"]
            signatures = SignatureDefMap.FromString(packed.value).signature_def
            return {name: tuple(each.inputs) for name, each in signatures.items()}
        except (DecodeError, ValueError) as error:
            return Failure("failed", f"its answer is none of TF Serving's ({error})")


def _failure(error: Any) -> Failure:
    code, details = error.code(), error.details() or ""
    retry_after = _pushback(error.trailing_metadata() or ())
    kind = _KINDS.get(code, "failed")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        kind = "refused"
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED and _STREAM_RESET in details:
        kind = "broken"
    elif code is grpc.StatusCode.UNAVAILABLE and any(words in details for words in _UNSENT):
        kind = "unsent"
    elif code is grpc.StatusCode.UNAVAILABLE:
        said = retry_after is not None or any(words in details for words in _UNTOUCHED)
        kind = "busy" if said else "broken"
    return Failure(kind, details[:_MOST_WORDS], code.name, retry_after)


def _pushback(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Reads after how many seconds the server wants to be asked again."""
    for key, value in metadata:
        if key == "grpc-retry-pushback-ms" and str(value).lstrip("-").isdecimal():
            # A negative number means never.
            return float("inf") if int(value) < 0 else int(value) / 1000
    return None


def _credentials(target: Target) -> grpc.ChannelCredentials:
    roots, key, chain = target.certificates()
    return grpc.ssl_channel_credentials(roots, key, chain)


def _options(target: Target) -> list[tuple[str, int]]:
    # A proxy has no way to a server on this machine.
    return [*_OPTIONS, ("grpc.enable_http_proxy", int(not target.loopback))]


class GrpcTransport:
    """Sends calls and waits for their answers; many threads may use it."""

    def __init__(self, target: Target, connections: int) -> None:
        self._codec = _Codec(target)
        if target.tls:
            self._channel = grpc.secure_channel(target.address, _credentials(target), _options(target))
        else:
            self._channel = grpc.insecure_channel(target.address, _options(target))
        self._methods = {kind: self._channel.unary_unary(path) for kind, path in _METHODS.items()}

    def send(self, call: Call, timeout: float) -> Any:
        """Sends a call; see `Send`."""
        try:
            content = self._methods[call.kind](
                self._codec.request(call), timeout=timeout, metadata=self._codec.metadata
            )
        except grpc.RpcError as error:
            return _failure(error)
        return self._codec.answer(call, content)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """Sends calls without blocking the event loop."""

    def __init__(self, target: Target, connections: int) -> None:
        self._codec = _Codec(target)
        if target.tls:
            self._channel = grpc.aio.secure_channel(target.address, _credentials(target), _options(target))
        else:
            self._channel = grpc.aio.insecure_channel(target.address, _options(target))
        self._methods = {kind: self._channel.unary_unary(path) for kind, path in _METHODS.items()}

    async def send(self, call: Call, timeout: float) -> Any:
        """Sends a call; see `Send`."""
        try:
            content = await self._methods[call.kind](
                self._codec.request(call), timeout=timeout, metadata=self._codec.metadata
            )
        except grpc.aio.AioRpcError as error:
            return _failure(error)
        return self._codec.answer(call, content)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
