"""The tf.data service: processes that make batches, and batches that are made there.

Of one dispatcher with several workers, each worker would make all batches, or rows would come in an order
that nobody knows. So every process has a dispatcher of its own with one worker, each makes every n-th batch,
and who trains takes them in turns: the batches, and their order, are those that he would have made himself.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.python.eager import cancellation  # what cancels a step has no public name

from tfapp.errors import ConfigError, OutputError, TrainingError

_ADDRESS = re.compile(r"grpc://([^/:]+):(\d{1,5})")
_ENDING_SECONDS, _ANSWER_SECONDS, _LOOK_SECONDS = 10.0, 5.0, 1.0
_MISSED = 3


def batches_of(
    services: Sequence[str], make: Callable[[tuple[int, int]], tf.data.Dataset]
) -> tf.data.Dataset:
    """Lets services make batches.

    Args:
        services: Their addresses, ``"grpc://host:port"`` each.
        make: From the number of a stripe and of all stripes to its batches, which never end.

    Returns:
        The batches of ``make((0, 1))`` in their order.

    Raises:
        ConfigError: When an address is none, or nothing answers there.
        TrainingError: When the batches need something that is in this process only.
    """
    for service in services:
        _check_answers(service)
    off = tf.data.experimental.service.ShardingPolicy.OFF
    stripes = []
    try:
        for number, service in enumerate(services):
            batches = make((number, len(services)))
            stripes.append(
                batches.apply(tf.data.experimental.service.distribute(processing_mode=off, service=service))
            )
    except tf.errors.OpError as error:
        raise TrainingError(
            f"the tf.data service cannot take over these batches: {str(error).splitlines()[0]}"
        ) from error
    if len(stripes) == 1:
        return stripes[0].prefetch(2)
    turns = tf.data.Dataset.range(len(stripes)).repeat()
    return tf.data.Dataset.choose_from_datasets(stripes, turns).prefetch(2)


@contextlib.contextmanager
def watching(services: Sequence[str]) -> Iterator[None]:
    """Ends training in here when a service no longer answers, for which TensorFlow would wait for ever.

    Args:
        services: Their addresses; nothing is watched where there are none.

    Raises:
        TrainingError: When one is gone; any other error passes.
    """
    if not services:
        yield
        return
    manager = cancellation.CancellationManager()
    ended, lost = threading.Event(), list[str]()

    def watch() -> None:
        missed = dict.fromkeys(services, 0)
        while not ended.wait(_LOOK_SECONDS):
            for service in services:
                missed[service] = 0 if _answers(service) is None else missed[service] + 1
            lost.extend(service for service in services if missed[service] >= _MISSED)
            if lost:
                manager.start_cancel()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with cancellation.CancellationManagerContext(manager):
            yield
    except tf.errors.OpError as error:
        if not lost:
            raise
        raise TrainingError(
            f"the tf.data service at {', '.join(lost)} no longer answers: start it again and run the same "
            "again, which goes on after the last checkpoint."
        ) from error
    finally:
        ended.set()
        watcher.join()


def _check_answers(service: str) -> None:
    if not _ADDRESS.fullmatch(service):
        raise ConfigError(f"service = {service!r}: give an address such as 'grpc://127.0.0.1:5050'.")
    problem = _answers(service)
    if problem is not None:
        raise ConfigError(
            f"service = {service!r}: nothing answers there ({problem}); start it with `tfapp data serve`, or "
            "leave the setting out."
        )


def _answers(service: str) -> str | None:
    """What keeps a service from being reached, or None."""
    host, _, port = service.removeprefix("grpc://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Services:
    """Services that run on this machine.

    Attributes:
        addresses: Where they answer.
        processes: Their processes.
    """

    addresses: tuple[str, ...]
    processes: tuple[subprocess.Popen[str], ...]

    def wait(self) -> None:
        """Waits for as long as all run.

        Raises:
            OutputError: When one has ended.
        """
        while True:
            for address, process in zip(self.addresses, self.processes, strict=True):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = process.wait(_LOOK_SECONDS / len(self.processes))
                    raise OutputError(f"the service at {address} ended with status {status}; start it again.")


@contextlib.contextmanager
def running_services(
    ports: Sequence[int], *, worker_ports: Sequence[int] | None = None, host: str = "127.0.0.1"
) -> Iterator[Services]:
    """Runs services on this machine, each in a process that ends with this one.

    Args:
        ports: The port of each, at which training asks for batches; 0 for any that is free.
        worker_ports: The port of each one's worker, from which training reads them; any that are free when
            None.
        host: Name or address under which training reaches this machine.

    Yields:
        The services.

    Raises:
        OutputError: When one cannot be started, as when a port is in use or named twice.
    """
    workers = [0] * len(ports) if worker_ports is None else list(worker_ports)
    named = [port for port in (*ports, *workers) if port]
    for port in named:
        if named.count(port) > 1:
            raise OutputError(f"port {port} is named twice: give another --port or --worker-port.")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "tfapp.data.shards.serving_process"]
    processes: list[subprocess.Popen[str]] = []
    try:
        for port, worker_port in zip(ports, workers, strict=True):
            _check_free(port, "--port")
            _check_free(worker_port, "--worker-port")
            processes.append(
                subprocess.Popen(
                    [*command, str(port), str(worker_port), host],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
        yield Services(tuple(map(_address, processes)), tuple(processes))
    finally:
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()  # the process ends when it can read no more
        ending = time.monotonic() + _ENDING_SECONDS
        for process in processes:
            try:
                process.wait(max(0.1, ending - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _check_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise OutputError(
                f"port {port} cannot be used ({error.strerror}): give another {option}."
            ) from error


def _address(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline().strip() if process.stdout is not None else ""
    if not _ADDRESS.fullmatch(line):
        raise OutputError(
            "a process of the tf.data service ended before it answered; what it says stands above."
        )
    return line
