"""TensorFlow Serving's REST interface as an ASGI application, with health, metrics and a description."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from tfapp.release.serving_files import METRICS_PATH as METRICS
from tfapp.serving.server import json_answers, json_requests, messages
from tfapp.serving.server.core import Core
from tfapp.serving.server.openapi import OPEN_PATHS, describe
from tfapp.serving.server.status import Code, RequestError, invalid

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
_LARGE_BODY = 1 << 18
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
        extra: list[tuple[bytes, bytes]] = []
        api = ""
        try:
            # A colon that came as %3A separates the verb too, as clients of other languages write it.
            api = _api(path)
            status, kind, body = await self._answer(method, path, scope, receive)
            code = Code.OK if status == 200 else Code.UNAVAILABLE
        except RequestError as error:
            status, kind, body, code = error.http, _JSON, json_answers.error(error.message), error.code
            extra = _headers(error, path)
        except Exception:
            # Nothing that a client sends may end the server or show its insides.
            _logger.exception("%s %s", method, path)
            status, kind, code = 500, _JSON, Code.INTERNAL
            body = json_answers.error("the server failed at this request; its log tells more")
        if api:
            seconds = time.perf_counter() - started
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

    async def _answer(self, method: str, path: str, scope: Scope, receive: Receive) -> tuple[int, str, bytes]:
        if path not in OPEN_PATHS:
            self._check_token(scope)
        if path in self._pages:
            _check_method(method, "GET", path)
            return self._pages[path]()
        raw = _raw_path(scope)
        asked = _ASK.fullmatch(raw)
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
        verb = asked[4].lower()
        body = await _body(scope, receive, self.core.settings.limits)
        with self.core.versions.lease(name, version, label) as model:
            if len(body) > _LARGE_BODY:
                document = await asyncio.to_thread(json_requests.parse, body)
            else:
                document = json_requests.parse(body)
            if verb != "predict":
                json_requests.check_examples(document)
                raise messages.not_a(verb, model, json_requests.signature_name(document))

            def read() -> json_requests.PredictRequest:
                return json_requests.predict_request(document, lambda name: self.core.signature(model, name))

            request = await asyncio.to_thread(read) if len(body) > _LARGE_BODY else read()
            outputs = await self.core.predict(model, request.signature, request.inputs)
        return json_answers.predictions(outputs) if request.by_row else json_answers.columns(outputs)

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
        token = self.core.settings.token
        if token is None:
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, b"Bearer " + token.encode()):
            raise RequestError(Code.UNAUTHENTICATED, "send the header Authorization: Bearer <token>")

    def _ready(self) -> tuple[int, str, bytes]:
        if self.core.ready:
            return 200, _JSON, b'{"status": "ready"}'
        why = "the server is shutting down" if self.core.draining else "no version is loaded yet"
        return 503, _JSON, json_answers.error(why)

    def _metrics(self) -> tuple[int, str, bytes]:
        return 200, "text/plain; version=0.0.4; charset=utf-8", self.core.metrics_page().encode()


def _api(path: str) -> str:
    asked = _ASK.fullmatch(path)
    return asked[4].lower() if asked else ""


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, so that a name's %2F is no separator."""
    raw = scope.get("raw_path")
    return raw.split(b"?", 1)[0].decode("latin-1") if raw else str(scope["path"])


def _model(match: re.Match[str]) -> tuple[str, int | None, str | None]:
    version = None if match[2] is None else int(match[2][:20])
    if version is not None and version > _MOST_VERSION:
        raise invalid(f"Failed to convert version: {match[2]} to numeric.")
    return unquote(match[1] or ""), version, None if match[3] is None else unquote(match[3])


def _check_method(method: str, allowed: str, path: str) -> None:
    if method != allowed:
        raise RequestError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}", http=405)


def _headers(error: RequestError, path: str) -> list[tuple[bytes, bytes]]:
    if error.http == 401:
        return [(b"www-authenticate", b"Bearer")]
    if error.http == 405:
        return [(b"allow", b"POST" if _ASK.fullmatch(path) else b"GET")]
    if error.http in (429, 503):
        return [(b"retry-after", b"1")]
    # What is left of a body that was not read would be taken for the next request.
    return [(b"connection", b"close")] if error.http in (408, 413) else []


async def _body(scope: Scope, receive: Receive, limits: Any) -> bytes:
    too_large = RequestError(
        Code.INVALID_ARGUMENT,
        f"the request's body is larger than {limits.body_bytes} bytes",
        http=413,
    )
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limits.body_bytes:
            raise too_large
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
                    raise too_large
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise RequestError(
            Code.DEADLINE_EXCEEDED,
            f"the request's body did not arrive within {limits.body_seconds:g} seconds",
            http=408,
        ) from error
    return b"".join(parts)
