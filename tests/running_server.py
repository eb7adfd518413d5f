"""A server for clients to be tested on: TF Serving's own where it is installed, else `tfapp serve`."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfapp.errors import ServingError
from tfapp.release.serving_files import server_arguments
from tfapp.serving import Client

REAL = "tensorflow_model_server"
_SECONDS_TO_START = 240


@dataclass(frozen=True)
class RunningServer:
    """Where a server listens, and whether it is TF Serving's own."""

    real: bool
    rest: str
    grpc: str


@contextlib.contextmanager
def running_server(directory: Path, logs: Path, *, joins: bool = True) -> Iterator[RunningServer]:
    """Serves every version that ``serving/models.config`` lists.

    Args:
        directory: ``saved_models/<name>``.
        logs: A folder for what the server says.
        joins: Whether TF Serving's own joins requests, as releases of texts have it and those of images not.

    Yields:
        The server, ready.
    """
    program = shutil.which(REAL)
    rest, channel = _free_ports(2)
    if program is None:
        warnings.warn(f"{REAL} is not on PATH: tfapp's own server stands in for it", stacklevel=3)
        command = [sys.executable, "-m", "tfapp", "serve", directory, "--port", rest, "--grpc-port", channel]
    else:
        folder = logs / "serving"
        shutil.copytree(directory / "serving", folder)
        models = folder / "models.config"
        models.write_text(models.read_text().replace(f"/models/{directory.name}", str(directory)))
        arguments = server_arguments(str(folder), joins=joins)
        command = [program, f"--port={channel}", f"--rest_api_port={rest}", *arguments]
    with (logs / "server.log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        try:
            _wait(process, f"http://127.0.0.1:{rest}", directory.name, logs / "server.log")
            yield RunningServer(
                program is not None, f"http://127.0.0.1:{rest}", f"grpc://127.0.0.1:{channel}"
            )
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], url: str, model: str, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    with Client(url, model, retries=0) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ServingError):
                if "AVAILABLE" in client.versions().values():
                    return
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
