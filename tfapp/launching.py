"""Several workers on one machine: a process each, which end together."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from tfapp.errors import ConfigError
from tfapp.machine import usable_cores

_LOG = logging.getLogger("tfapp")
_HOST = "127.0.0.1"
_OTHERS_SECONDS = 30.0
"""How long the others may take to end by themselves when one has failed."""
_STOP_SECONDS = 120.0
"""How long they may take for their checkpoint when they are told to stop."""
_CRASHED = 70
_POLL_SECONDS = 0.1
_OWN_STATUSES = (1, 2, 3)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def launch(arguments: Sequence[str], *, workers: int, restarts: int = 0, once: Sequence[str] = ()) -> int:
    """Runs `tfapp` in several processes that train together, and waits for them.

    Args:
        arguments: The command's arguments, such as ``["run", "workflow.toml"]``.
        workers: How many processes, 2 or more.
        restarts: How often all are started again when one has crashed or was killed.
        once: Further arguments of the first start only.

    Returns:
        The exit status: 0, or that of the worker that failed first; 3 when interrupted.

    Raises:
        ConfigError: When this process is itself one of several workers, or GPUs are too few.
    """
    if os.environ.get("TF_CONFIG"):
        raise ConfigError(
            "TF_CONFIG is set, so this process is already one of several workers: run `tfapp run` here, or "
            "unset the variable."
        )
    status = _together([*arguments, *once], workers)
    for attempt in range(1, restarts + 1):
        if status == 0 or status in _OWN_STATUSES:
            break
        _LOG.warning("a worker crashed (status %d); start %d of %d", status, attempt + 1, restarts + 1)
        status = _together(arguments, workers)
    return status


def environments(workers: int) -> list[dict[str, str]]:
    """Makes what tells each worker who it is.

    Args:
        workers: How many there are.

    Returns:
        Variables for each: ``TF_CONFIG`` with free ports of this machine, its share of the cores, and as many
        of the GPUs as every other.

    Raises:
        ConfigError: When there are GPUs, but fewer than workers.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind((_HOST, 0))
        hosts = [f"{_HOST}:{each.getsockname()[1]}" for each in sockets]
    threads = str(max(1, usable_cores() // workers))
    gpus = _gpus()
    share = len(gpus) // workers
    if gpus and not share:
        raise ConfigError(
            f"{len(gpus)} GPUs are too few for {workers} workers: start fewer, or `tfapp run` alone, which "
            "uses all GPUs of a machine; CUDA_VISIBLE_DEVICES='' trains on processors."
        )
    made = []
    for index in range(workers):
        config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        variables = {"TF_CONFIG": json.dumps(config), "TF_NUM_INTRAOP_THREADS": threads}
        if gpus:
            own = gpus[index * share : (index + 1) * share]
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        made.append(variables)
    return made


def _gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def _together(arguments: Sequence[str], workers: int) -> int:
    """Runs the processes of one start until all have ended."""
    processes: list[subprocess.Popen[str]] = []
    told: list[int] = []
    with _passing_on(processes, told):
        try:
            for index, variables in enumerate(environments(workers)):
                processes.append(_start(arguments, index, variables))
            return _wait(processes, told)
        finally:
            _end(processes)


def _start(arguments: Sequence[str], index: int, variables: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a worker; the chief writes to the terminal as it would alone, lines of the others are marked."""
    piped = None if index == 0 else subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-m", "tfapp", *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=piped,
        stderr=None if piped is None else subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # the terminal's interrupt is passed on, once
    )
    if process.stdout is not None:
        threading.Thread(target=_mark, args=(process.stdout, index), daemon=True).start()
    return process


def _mark(lines: IO[str], index: int) -> None:
    for line in lines:
        sys.stderr.write(f"[worker {index}] {line}")
        sys.stderr.flush()


def _wait(processes: Sequence[subprocess.Popen[str]], told: Sequence[int]) -> int:
    """Waits for all; once one has failed, the others get a while."""
    deadline = None
    while any(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if deadline is None and told:
            deadline = now + _STOP_SECONDS
        if deadline is None and any(process.poll() not in (None, 0) for process in processes):
            deadline = now + _OTHERS_SECONDS
        if deadline is not None and now > deadline:
            break
    # Those that have lost another end with 3, so that any other status tells more.
    failed = [process.returncode for process in processes if process.returncode not in (None, 0)]
    if told:
        return 3 if failed or any(process.returncode is None for process in processes) else 0
    crashed = [status for status in failed if status not in _OWN_STATUSES]
    return _CRASHED if crashed else min(failed, default=0)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def _passing_on(processes: Sequence[subprocess.Popen[str]], told: list[int]) -> Iterator[None]:
    """Passes SIGTERM, SIGINT and SIGHUP on to the workers, who write a checkpoint and end."""

    def pass_on(number: int, _frame: object) -> None:
        told.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
