"""TF Serving's REST interface."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx2

from tfapp.serving.client.exchange import Call, Failure
from tfapp.serving.client.target import Target

# Raised before a request is sent.
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout)
_MOST_WORDS = 1000  # characters of a server's message
# Less than servers wait before they close an idle connection, perhaps while a request is on its way.
_IDLE_SECONDS = 2.0
_KINDS: dict[int, Any] = {
    400: "refused",
    401: "denied",
    403: "denied",
    404: "missing",
    408: "late",
    413: "refused",
    422: "refused",
    429: "busy",
    503: "busy",
    504: "late",
}


_TOO_SLOW = Failure("late", "its answer had not ended")


class _Codec:
    """Calls as HTTP requests, and HTTP responses as answers."""

    def __init__(self, target: Target) -> None:
        version = ""
        if target.version is not None:
            kind = "versions" if isinstance(target.version, int) else "labels"
            version = f"/{kind}/{quote(str(target.version), safe='')}"
        model = f"{target.address}/v1/models/{quote(target.model, safe='')}"
        self._urls = {
            "predict": f"{model}{version}:predict",
            "metadata": f"{model}{version}/metadata",
            "status": f"{model}{version}",
        }

    def request(self, call: Call) -> tuple[str, str, bytes | None]:
        """Gives method, address and body."""
        if call.kind != "predict":
            return "GET", self._urls[call.kind], None
        if call.input == "text":
            values: list[Any] = [value.decode("utf-8") for value in call.values]
        else:
            values = [{"b64": base64.b64encode(value).decode("ascii")} for value in call.values]
        body = {"signature_name": call.signature, "inputs": {call.input: values}}
        return "POST", self._urls["predict"], json.dumps(body, ensure_ascii=False).encode("utf-8")

    def answer(self, call: Call, response: httpx2.Response, body: bytes) -> Any:
        """Reads a response and its body."""
        if response.status_code != 200:
            return _failure(response, body)
        try:
            content = json.loads(body)
            if call.kind == "status":
                rows = content["model_version_status"]
                return {int(row["version"]): str(row["state"]) for row in rows}
            if call.kind == "metadata":
                signatures = content["metadata"]["signature_def"]
                signatures = signatures.get("signature_def", signatures)
                return {name: tuple(each.get("inputs", ())) for name, each in signatures.items()}
            outputs = content["outputs"]
            if not isinstance(outputs, Mapping):  # a single output comes without its name
                outputs = {call.outputs[0]: outputs}
            return {name: outputs[name] for name in call.outputs}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Failure("failed", f"its answer is none of TF Serving's ({type(error).__name__}: {error})")


def _failure(response: httpx2.Response, body: bytes) -> Failure:
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")
    return Failure(
        _KINDS.get(response.status_code, "failed"),
        message.strip()[:_MOST_WORDS] or response.reason_phrase,
        f"HTTP {response.status_code}",
        _retry_after(response.headers.get("retry-after")),
    )


def _retry_after(value: str | None) -> float | None:
    """Reads a header that has seconds or a date; None for neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _lost(error: httpx2.TransportError) -> Failure:
    reason = str(error) or type(error).__name__
    if isinstance(error, _UNSENT):
        return Failure("unsent", reason)
    return Failure("late" if isinstance(error, httpx2.TimeoutException) else "broken", reason)


def _options(target: Target, connections: int) -> dict[str, Any]:
    return {
        "headers": {"content-type": "application/json", **target.headers()},
        "verify": target.ssl_context() if target.tls else False,
        "limits": httpx2.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_IDLE_SECONDS,
        ),
        # A proxy has no way to a server on this machine.
        "trust_env": not target.loopback,
    }


class _Left(Mapping[str, float]):
    """The time limits of a request's steps, each asked for as its step begins: what is left by then."""

    _STEPS = ("pool", "connect", "write", "read")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def __getitem__(self, step: str) -> float:
        if step not in self._STEPS:
            raise KeyError(step)
        # With 0 a socket would not wait at all, which is another error than being late.
        return max(self._deadline - time.monotonic(), 0.001)

    def __iter__(self) -> Iterator[str]:
        return iter(self._STEPS)

    def __len__(self) -> int:
        return len(self._STEPS)


class RestTransport:
    """Sends calls and waits for their answers; many threads may use it."""

    def __init__(self, target: Target, connections: int) -> None:
        self._codec = _Codec(target)
        self._client = httpx2.Client(**_options(target, connections))

    def send(self, call: Call, timeout: float) -> Any:
        """Sends a call; see `Send`."""
        deadline = time.monotonic() + timeout
        method, url, content = self._codec.request(call)
        body = bytearray()
        try:
            limits = {"timeout": _Left(deadline)}
            with self._client.stream(method, url, content=content, extensions=limits) as response:
                # A limit is asked for once for the body, and holds for each part of it.
                for part in response.iter_bytes():
                    body += part
                    if time.monotonic() > deadline:
                        return _TOO_SLOW
        except httpx2.TransportError as error:
            return _lost(error)
        return self._codec.answer(call, response, bytes(body))

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()


class AsyncRestTransport:
    """Sends calls without blocking the event loop."""

    def __init__(self, target: Target, connections: int) -> None:
        self._codec = _Codec(target)
        self._client = httpx2.AsyncClient(**_options(target, connections))

    async def send(self, call: Call, timeout: float) -> Any:
        """Sends a call; see `Send`."""
        method, url, content = self._codec.request(call)
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.request(method, url, content=content, timeout=timeout)
        except httpx2.TransportError as error:
            return _lost(error)
        except TimeoutError:
            return _TOO_SLOW
        return self._codec.answer(call, response, response.content)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()
