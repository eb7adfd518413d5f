"""A server's life: load, warm up, listen, watch for versions, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from tfapp.errors import ConfigError, OutputError, ReleaseError
from tfapp.release.serving_files import BATCHING_FILE, FOLDER
from tfapp.release.versions import check_name, version_folder
from tfapp.serving.server.core import Core
from tfapp.serving.server.grpc_services import GrpcServices
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.metrics import Metrics
from tfapp.serving.server.model_files import read_batching
from tfapp.serving.server.rest import RestApp
from tfapp.serving.server.settings import ServerSettings
from tfapp.serving.server.versions import Versions

_BACKLOG = 2048  # connections that wait to be taken
_logger = logging.getLogger(__name__)


class Server:
    """A server of one release, with REST and gRPC.

    Args:
        settings: What it is told.

    Raises:
        ReleaseError: When there is no release at the path.
        OutputError: When the folder's name is no model name.
        ConfigError: When a manifest's checksum is given, but no single version.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        given = settings.release.expanduser().absolute()
        version_folder(given)
        self.versions = Versions(given, self._load)
        check_name(self.versions.base)
        if settings.manifest_sha256 is not None and self.versions.base == given:
            raise ConfigError(
                f"--manifest-sha256: {given} is served with every version to come, and a checksum stands for "
                "one: give saved_models/<name>/<version>, or leave it out."
            )
        self.core = Core(self.versions, settings, Metrics(self.versions.name))
        self.port = 0
        self.grpc_port = 0
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Asks the server to answer what it has and end."""
        self._stop.set()

    async def run(self, started: Callable[[], object] | None = None) -> None:
        """Serves until `stop`.

        Args:
            started: Called when requests are welcome.

        Raises:
            ReleaseError: When no version can be served.
            OutputError: When a port cannot be listened at.
        """
        listener = self._bound()
        stopping = asyncio.create_task(self._stop.wait())
        try:
            if not await self._loaded(stopping):
                return
            health = grpc_health.HealthServicer()
            rpc = await self._start_grpc(health)
            try:
                await self._serve(listener, rpc, health, stopping, started)
            finally:
                if rpc is not None:
                    await rpc.stop(0)
        finally:
            await _cancelled(stopping)
            listener.close()
            await self.versions.close(self.settings.drain_seconds)
            self.core.close()

    async def _loaded(self, stopping: asyncio.Task[Any]) -> bool:
        """Loads what is to be served; False when the server was told to stop meanwhile."""
        loading = asyncio.create_task(self.versions.refresh())
        try:
            await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return False
            await loading
        finally:
            await _cancelled(loading)
        if not self.versions.ready:
            problems = [state.problem for state in self.versions.states.values() if state.problem]
            raise ReleaseError("; ".join(problems) or f"{self.versions.base} has no version to serve.")
        return True

    async def _serve(
        self,
        listener: socket.socket,
        rpc: Any,
        health: Any,
        stopping: asyncio.Task[Any],
        started: Callable[[], object] | None,
    ) -> None:
        web = _Web(self._web_config())
        try:
            listener.listen(_BACKLOG)
        except OSError as error:  # somebody else was faster
            raise self._cannot_listen(error) from error
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        watching = asyncio.create_task(self.versions.watch(self.settings.poll_seconds))
        try:
            while not web.started and not serving.done():
                await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
            for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
                await health.set(service, health_pb2.HealthCheckResponse.SERVING)
            if started is not None:
                started()
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.core.draining = True
            await _cancelled(watching)
            await health.enter_graceful_shutdown()
            web.should_exit = True
            ending = [serving]
            if rpc is not None:
                ending.append(asyncio.ensure_future(rpc.stop(self.settings.drain_seconds)))
            await asyncio.gather(*ending)

    async def _start_grpc(self, health: Any) -> Any:
        if self.settings.grpc_port is None:
            return None
        size = self.settings.limits.body_bytes
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        server.add_generic_rpc_handlers(GrpcServices(self.core).handlers())
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        address = f"{_bracketed(self.settings.host)}:{self.settings.grpc_port}"
        try:
            if self.settings.tls_certificate is None or self.settings.tls_key is None:
                self.grpc_port = server.add_insecure_port(address)
            else:
                pair = (self.settings.tls_key.read_bytes(), self.settings.tls_certificate.read_bytes())
                self.grpc_port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise OutputError(
                f"gRPC cannot listen at {address}; choose another --grpc-port, or stop what listens there."
            ) from error
        await server.start()
        return server

    def _web_config(self) -> uvicorn.Config:
        key, certificate = self.settings.tls_key, self.settings.tls_certificate
        return uvicorn.Config(
            RestApp(self.core),
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(self.settings.drain_seconds)),
            ssl_keyfile=key,
            ssl_certfile=certificate,
        )

    def _bound(self) -> socket.socket:
        """Takes the port, where nobody is let in before there is an answer."""
        host, port = self.settings.host, self.settings.port
        listener = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind, protocol)
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
        except OSError as error:
            if listener is not None:
                listener.close()
            raise self._cannot_listen(error) from error
        self.port = listener.getsockname()[1]
        return listener

    def _cannot_listen(self, error: OSError) -> OutputError:
        return OutputError(
            f"REST cannot listen at {self.settings.host}:{self.settings.port} ({error.strerror or error}); "
            "choose another --host or --port, or stop what listens there."
        )

    def _load(self, directory: Path, version: int) -> LoadedModel:
        batching = read_batching(directory.parent / FOLDER / BATCHING_FILE, self.settings.batching)
        return LoadedModel(
            directory,
            version,
            batching=batching,
            threads=self.settings.threads,
            manifest_sha256=self.settings.manifest_sha256,
        )


class _Web(uvicorn.Server):
    """Uvicorn that leaves the process's signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures nothing."""
        yield


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Ends a task, if it has not ended, and waits until it has."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def is_loopback(host: str) -> bool:
    """Says whether an address can be reached from this machine only.

    Args:
        host: An address or a name.

    Returns:
        True for loopback addresses and ``localhost``.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(settings: ServerSettings, *, announce: Callable[[str], object] = _logger.info) -> None:
    """Serves a release until the process is told to end (SIGTERM, SIGINT), then answers what it has.

    Args:
        settings: What the server is told.
        announce: Called with lines for people.

    Raises:
        ConfigError: When a certificate cannot be used.
        ReleaseError: When there is no release to serve.
        OutputError: When a port cannot be listened at.
    """
    # What the libraries are made of need not be looked through at every collection, with requests waiting.
    # Models come later, for what is frozen is never freed: they go when another version takes over.
    gc.collect()
    gc.freeze()
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner:
        runner.run(_serve_until_told(settings, announce))


async def _serve_until_told(settings: ServerSettings, announce: Callable[[str], object]) -> None:
    server = Server(settings)
    if not is_loopback(settings.host) and settings.token is None:
        announce(
            f"warning: {settings.host} can be reached by other machines and no token is asked for: anybody "
            "there can use the model. Set TFAPP_TOKEN or --token-file."
        )
    elif not is_loopback(settings.host) and settings.tls_certificate is None:
        announce(
            f"warning: the token is sent to {settings.host} unencrypted: who reads it on its way can use the "
            "model. Give --tls-cert and --tls-key."
        )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # where event loops take no signals
            loop.add_signal_handler(number, functools.partial(_told, server, announce))
    await server.run(lambda: announce(_address(server)))


def _told(server: Server, announce: Callable[[str], object]) -> None:
    ready = server.core.ready
    announce(
        "Ending: requests in flight are answered." if ready else "Ending as soon as the loading is over."
    )
    server.stop()


def _address(server: Server) -> str:
    settings = server.settings
    scheme = "http" if settings.tls_certificate is None else "https"
    where = f"{scheme}://{_bracketed(settings.host)}:{server.port}/v1/models/{server.versions.name}"
    newest = server.versions.newest()
    rpc = f", gRPC at port {server.grpc_port}" if settings.grpc_port is not None else ""
    return f"Serving version {newest.version if newest else '?'} at {where}{rpc}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
