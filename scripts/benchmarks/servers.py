"""Starts servers for the benchmarks of serving, and reads what their processes use."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers import PeerError

HERE = Path(__file__).resolve().parent
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class RunningServer:
    """A server on loopback.

    Attributes:
        name: What it is.
        port: Port of REST.
        grpc_port: Port of gRPC; 0 where it is not used.
        process: Its first process, the leader of a group of its own.
        log: What it said.
    """

    name: str
    port: int
    grpc_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        return sum(float(fields[11]) + float(fields[12]) for fields in self._statistics()) / _TICKS

    def megabytes(self) -> float:
        """Resident memory of all its processes."""
        return sum(int(fields[21]) for fields in self._statistics()) * _PAGE / 1e6

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def _statistics(self) -> list[list[str]]:
        """The fields of /proc/PID/stat after the name, for each process of the group."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rsplit(")", 1)[1].split()
                if int(fields[2]) == self.process.pid:
                    found.append(fields)
        return found


@contextlib.contextmanager
def running(
    name: str, command: Sequence[object], *, port: int, ready: str, grpc_port: int = 0, seconds: float = 300
) -> Iterator[RunningServer]:
    """Starts a server and waits until it is ready; ends it and its children at last.

    Args:
        name: What it is.
        command: Its command line.
        port: Port of REST.
        ready: The path that answers 200 when it is ready.
        grpc_port: Port of gRPC, where it is used.
        seconds: How long it may take to start.
    """
    # The load sends no token.
    environment = {name: value for name, value in os.environ.items() if name != "TFAPP_TOKEN"}
    with tempfile.TemporaryDirectory(prefix="tfapp-serving-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        server = RunningServer(name, port, grpc_port, process, log)
        try:
            _wait(server, ready, seconds)
            yield server
        finally:
            _end(process)


def tfapp_server(release: Path, *options: object) -> contextlib.AbstractContextManager[RunningServer]:
    """Starts `tfapp serve`."""
    port, grpc_port = free_ports(2)
    command = [sys.executable, "-m", "tfapp", "serve", release, "--port", port, "--grpc-port", grpc_port]
    return running("tfapp", [*command, *options], port=port, grpc_port=grpc_port, ready="/readyz")


def free_ports(count: int) -> list[int]:
    """Finds ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(server: RunningServer, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.alive:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.3)
    raise PeerError(f"{server.name} did not start:\n{server.said()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, 40), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
