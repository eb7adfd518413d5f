"""TensorFlow Serving's REST interface as an ASGI application, with health, metrics and a description."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import unquote

from tfapp.release.serving_files import METRICS_PATH as METRICS
from tfapp.serving.server import json_answers, json_requests, messages
from tfapp.serving.server.classification import INPUTS, classifying, not_regressing
from tfapp.serving.server.core import Core, Request
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.openapi import OPEN_PATHS, describe
from tfapp.serving.server.settings import Limits
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import FAILED, Code, RequestError, invalid

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_ASK = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE
)
_LOOK = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE
)
_MOST_VERSION = 2**63 - 1
_WRITING = 8
"""Writing a byte of a number in JSON takes as long as reading so many bytes."""

_JSON = "application/json"
_logger = logging.getLogger(__name__)


class RestApp:
    """The ASGI application.

    Args:
        core: Answers requests.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/healthz": lambda: (200, _JSON, b'{"status": "alive"}'),
            "/readyz": self._ready,
            "/metrics": self._metrics,
            METRICS: self._metrics,
            "/openapi.json": lambda: (200, _JSON, json.dumps(describe(core), indent=1).encode()),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        Args:
            scope: As ASGI has it.
            receive: As ASGI has it.
            send: As ASGI has it.
        """
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        path, method = scope["path"], scope["method"]
        raw = _raw_path(scope)
        asked = _ASK.fullmatch(raw)
        extra: list[tuple[bytes, bytes]] = []
        try:
            status, kind, body = await self._answer(asked, raw, scope, receive)
            code = Code.OK if status == 200 else Code.UNAVAILABLE
        except RequestError as error:
            status, kind, body, code = error.http, _JSON, json_answers.error(error.message), error.code
            extra = _headers(error, allowed=b"POST" if asked else b"GET")
        except Exception:
            # Nothing that a client sends may end the server or show its insides.
            _logger.exception("%s %s", method, path)
            status, kind, code = 500, _JSON, Code.INTERNAL
            body = json_answers.error(FAILED)
        if asked is not None:
            api, seconds = asked[4].lower(), time.perf_counter() - started
            self.core.metrics.answered(api=api, entrypoint="REST", status=code.name, seconds=seconds)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", kind.encode()),
                    (b"content-length", str(len(body)).encode()),
                    *extra,
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, asked: re.Match[str] | None, raw: str, scope: Scope, receive: Receive
    ) -> tuple[int, str, bytes]:
        path, method = scope["path"], scope["method"]
        if path not in OPEN_PATHS:
            self._check_token(scope)
        if path in self._pages:
            _check_method(method, "GET", path)
            return self._pages[path]()
        if asked is not None:
            _check_method(method, "POST", path)
            return 200, _JSON, await self._ask(asked, scope, receive)
        looked = _LOOK.fullmatch(raw)
        if looked is not None:
            _check_method(method, "GET", path)
            return 200, _JSON, self._look(looked)
        if raw.lower().startswith("/v1/"):
            raise invalid(f"Malformed request: {method} {path}")
        raise RequestError(Code.NOT_FOUND, f"there is nothing at {path}")

    async def _ask(self, asked: re.Match[str], scope: Scope, receive: Receive) -> bytes:
        name, version, label = _model(asked)
        async with contextlib.AsyncExitStack() as stack:
            with _unread():
                request = stack.enter_context(self.core.request())
            zipped = _zipped(scope)
            body = await _received(scope, receive, self.core.settings.limits, request.take)
            await stack.enter_async_context(self.core.in_time())
            if zipped:
                body = await self._inflated(request, body)
            with self.core.versions.lease(name, version, label) as model:
                signature, inputs, write = await request.aside(
                    len(body), self._read, body, model, asked[4].lower()
                )
                outputs = await self.core.predict(model, signature, inputs)
            size = sum(output.nbytes for output in outputs.values())
            return await request.aside(_WRITING * size, write, outputs)

    def _read(
        self, body: bytes, model: LoadedModel, verb: str
    ) -> tuple[Signature, Arrays, Callable[[Arrays], bytes]]:
        document = json_requests.parse(body)
        if verb == "predict":
            request = json_requests.predict_request(document, lambda name: self.core.signature(model, name))
            write = json_answers.predictions if request.by_row else json_answers.columns
            return request.signature, request.inputs, write
        name = json_requests.signature_name(document)
        examples = json_requests.examples(document, self.core.settings.limits)
        if verb == "regress":
            raise not_regressing(model, name)
        return classifying(model, name), {INPUTS: examples}, json_answers.results

    async def _inflated(self, request: Request, body: bytes) -> bytes:
        most = self.core.settings.limits.body_bytes
        whole = await request.aside(most, _inflated, body, most)  # a few bytes may stand for many
        request.take(len(whole))
        return whole

    def _look(self, looked: re.Match[str]) -> bytes:
        name, version, label = _model(looked)
        versions = self.core.versions
        if looked[4]:
            if not name:
                raise invalid("Missing model name in request.")
            with versions.lease(name, version, label) as model:
                return messages.metadata_json(messages.model_metadata(versions, model))
        return messages.status_json(messages.model_status(versions, name, version, label))

    def _check_token(self, scope: Scope) -> None:
        if not self.core.knows(_header(scope, b"authorization")):
            raise RequestError(Code.UNAUTHENTICATED, "send the header Authorization: Bearer <token>")

    def _ready(self) -> tuple[int, str, bytes]:
        if self.core.ready:
            return 200, _JSON, b'{"status": "ready"}'
        why = "the server is shutting down" if self.core.draining else "no version is loaded yet"
        return 503, _JSON, json_answers.error(why)

    def _metrics(self) -> tuple[int, str, bytes]:
        return 200, "text/plain; version=0.0.4; charset=utf-8", self.core.metrics_page().encode()


class _BodyError(RequestError):
    """A body that was not read to its end."""


@contextlib.contextmanager
def _unread() -> Iterator[None]:
    """Makes of a refusal one of a body that was not read to its end."""
    try:
        yield
    except RequestError as error:
        raise _BodyError(error.code, error.message) from error


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, so that a name's %2F is no separator.

    A colon that came as %3A separates the verb, as clients of other languages write it.
    """
    raw = scope.get("raw_path")
    path = raw.split(b"?", 1)[0].decode("latin-1") if raw else str(scope["path"])
    return path.replace("%3A", ":").replace("%3a", ":")


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _model(match: re.Match[str]) -> tuple[str, int | None, str | None]:
    version = None if match[2] is None else int(match[2][:20])
    if version is not None and version > _MOST_VERSION:
        raise invalid(f"Failed to convert version: {match[2]} to numeric.")
    return unquote(match[1] or ""), version, None if match[3] is None else unquote(match[3])


def _check_method(method: str, allowed: str, path: str) -> None:
    if method != allowed:
        raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}", http=405)


def _headers(error: RequestError, *, allowed: bytes) -> list[tuple[bytes, bytes]]:
    # What is left of a body that was not read would be taken for the next request.
    headers = [(b"connection", b"close")] if isinstance(error, _BodyError) else []
    if error.http == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.http == 405:
        headers.append((b"allow", allowed))
    if error.http in (429, 503):
        headers.append((b"retry-after", b"1"))
    return headers


def _too_large(most: int) -> RequestError:
    message = f"the request's body is larger than {most} bytes"
    return _BodyError(Code.INVALID_ARGUMENT, message, http=413)


def _zipped(scope: Scope) -> bool:
    encoding = _header(scope, b"content-encoding").strip().lower()
    if encoding not in (b"", b"identity", b"gzip"):
        raise _BodyError(
            Code.INVALID_ARGUMENT, "the Content-Encoding of a body must be gzip or identity", http=415
        )
    return encoding == b"gzip"


async def _received(scope: Scope, receive: Receive, limits: Limits, take: Callable[[int], None]) -> bytes:
    length = _header(scope, b"content-length")
    if length.isdigit() and int(length[:20]) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(limits.body_seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(Code.CANCELLED, "the client went away")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                with _unread():
                    take(len(parts[-1]))
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise _BodyError(
            Code.DEADLINE_EXCEEDED,
            f"the request's body did not arrive within {limits.body_seconds:g} seconds",
            http=408,
        ) from error
    return b"".join(parts)


def _inflated(body: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        whole = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise invalid(f"the body is no gzip: {error}") from error
    if len(whole) > most:
        raise _too_large(most)
    if not stream.eof or stream.unused_data:
        raise invalid("the body is no gzip: it is cut short, or goes on after its end")
    return whole
