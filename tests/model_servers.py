"""Servers that fail on purpose: what they answer is written down beforehand."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from tfapp.wire.messages import PredictRequest, PredictResponse
from tfapp.wire.tensors import string_tensor

CLASSES = ("bad", "good")
RESET = "reset"
DRIP = "drip"
"""An answer over REST that comes byte by byte, for five seconds."""

# Frames of HTTP/2 after which, and after whose bytes, the connection ends.
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
BREAKS = {
    "closed": b"",
    "told to go": b"\0\0\x08\7\0\0\0\0\0" + struct.pack(">II", 1, 0),
    "stream refused for its load": b"\0\0\4\3\0\0\0\0\1" + struct.pack(">I", 11),
}


def scores(text: bytes) -> list[float]:
    """The probabilities that these servers give."""
    return [0.25, 0.75] if b"good" in text else [0.875, 0.125]


class Script:
    """What is answered to requests in their turn: failures first, then what they ask for.

    Attributes:
        seen: The texts of each request, its headers, and the moment when it came.
        unwelcome: Words with which all is refused; empty where it is not.
    """

    def __init__(self, *failures: Any, delay: float = 0.0) -> None:
        self.failures, self.delay = list(failures), delay
        self.unwelcome = ""
        self.seen: list[tuple[list[bytes], dict[str, str], float]] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    @property
    def texts(self) -> list[list[bytes]]:
        return [texts for texts, _, _ in self.seen]

    @property
    def pauses(self) -> list[float]:
        """Seconds between requests."""
        moments = [moment for _, _, moment in self.seen]
        return [later - earlier for earlier, later in itertools.pairwise(moments)]

    @contextlib.contextmanager
    def take(self, texts: list[bytes], headers: dict[str, str]) -> Iterator[Any]:
        """Notes a request, and says how it fails; None when it is to be answered."""
        with self._lock:
            self.seen.append((texts, headers, time.monotonic()))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            failure = self.failures.pop(0) if self.failures else None
        time.sleep(self.delay)
        if failure is None and self.unwelcome:
            failure = (400, self.unwelcome)
        if failure is None and any(b"refuse" in text for text in texts):
            failure = (400, "Input to reshape: assertion failed: [b'the image is damaged']")
        try:
            yield failure
        finally:
            with self._lock:
                self.in_flight -= 1


@contextlib.contextmanager
def http_server(script: Script, *, tls: Any = None) -> Iterator[str]:
    """Speaks TF Serving's REST, for a model of texts.

    Args:
        script: What is answered; failures are ``(status, message)``, ``(status, message, headers)`` or
            `RESET`.
        tls: An `ssl.SSLContext`, or None.

    Yields:
        The server's address.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))
            texts = [text.encode() for text in content["inputs"]["text"]]
            headers = {**{key.lower(): value for key, value in self.headers.items()}, "path": self.path}
            with script.take(texts, headers) as failure:
                if failure == RESET:
                    self.close_connection = True
                elif failure == DRIP:
                    self.send_response(200)
                    self.send_header("content-length", "100")
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        for _ in range(100):
                            self.wfile.write(b" ")
                            time.sleep(0.05)
                    self.close_connection = True
                elif failure is None:
                    rows = [scores(text) for text in texts]
                    labels = [CLASSES[row.index(max(row))] for row in rows]
                    self._send(200, {"outputs": {"label": labels, "probabilities": rows, "logits": rows}})
                else:
                    status, message, *more = failure
                    self._send(status, {"error": message}, *more)

        def _send(self, status: int, content: Any, headers: Any = ()) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def grpc_server(script: Script, *, credentials: Any = None) -> Iterator[str]:
    """Speaks TF Serving's gRPC, for a model of texts.

    Args:
        script: What is answered; failures are ``(code, message)`` or ``(code, message, trailing metadata)``;
            400 is ``INVALID_ARGUMENT``.
        credentials: Server credentials, or None.

    Yields:
        The server's address.
    """

    def predict(request: Any, context: Any) -> Any:
        texts = list(request.inputs["text"].string_val)
        with script.take(texts, dict(context.invocation_metadata())) as failure:
            if failure is not None:
                code, message, *more = failure
                for trailing in more:
                    context.set_trailing_metadata(trailing)
                context.abort(grpc.StatusCode.INVALID_ARGUMENT if code == 400 else code, message)
            response = PredictResponse()
            rows = [scores(text) for text in texts]
            labels = [CLASSES[row.index(max(row))].encode() for row in rows]
            response.outputs["label"].CopyFrom(string_tensor(labels))
            probabilities = response.outputs["probabilities"]
            probabilities.dtype = 1
            for size in (len(rows), len(CLASSES)):
                probabilities.tensor_shape.dim.add(size=size)
            probabilities.float_val.extend(value for row in rows for value in row)
            return response

    handler = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=PredictRequest.FromString,
        response_serializer=PredictResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})]
    )
    if credentials is None:
        port, scheme = server.add_insecure_port("127.0.0.1:0"), "grpc"
    else:
        port, scheme = server.add_secure_port("127.0.0.1:0", credentials), "grpcs"
    server.start()
    try:
        yield f"{scheme}://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def breaking_grpc_server(how: str) -> Iterator[tuple[str, list[bytes]]]:
    """Takes each gRPC request whole, and breaks the connection instead of answering.

    Args:
        how: A key of `BREAKS`.

    Yields:
        The server's address, and the requests for ``good`` as they come.
    """
    requests: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(_SETTINGS)
                    received = b""
                    while chunk := connection.recv(65536):
                        received += chunk
                        if b"good" in received:
                            requests.append(received)
                            connection.sendall(BREAKS[how])
                            connection.shutdown(socket.SHUT_WR)
                            received = b""

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"grpc://127.0.0.1:{listener.getsockname()[1]}", requests
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
