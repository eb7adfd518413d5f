"""A load generator for servers on loopback: many connections in one thread, and little work a request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Check = Callable[[int, bytes], bool]
"""Says of the number of a request and the body of its answer whether it is right."""

_END = b"\r\n\r\n"


@dataclass
class Load:
    """What a load brought to light.

    Attributes:
        seconds: How long it lasted.
        latencies: Seconds of each answered request; at a fixed rate from the moment it was due.
        failures: How many requests were not answered with status 200 and a right answer, by what they were
            answered with.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def milliseconds(self, percent: float) -> float:
        """Looks up a percentile of the latencies.

        Args:
            percent: 0 to 100.

        Returns:
            Milliseconds; nan without any answer.
        """
        return float(np.percentile(self.latencies, percent)) * 1e3 if self.latencies else float("nan")


def post(path: str, payload: object, *, host: str = "127.0.0.1", token: str | None = None) -> bytes:
    """Writes a POST request once, to be sent often.

    Args:
        path: Its path.
        payload: What becomes its JSON body.
        host: The Host header.
        token: A bearer token, or None.

    Returns:
        The bytes of the request.
    """
    body = json.dumps(payload).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}"]
    head += [] if token is None else [f"Authorization: Bearer {token}"]
    return "\r\n".join(head).encode() + _END + body


async def drive(
    host: str,
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
    check: Check | None = None,
) -> Load:
    """Sends requests over kept connections and measures the answers.

    Args:
        host: Where the server listens.
        port: Where the server listens.
        requests: Whole requests, sent in turn and from the start again.
        connections: How many connections, each with one request in flight.
        seconds: How long requests are sent; those in flight are then awaited.
        rate: Requests a second that are due, whether or not earlier ones are answered; None sends the next
            one of a connection when its last is answered.
        check: Says whether an answer is right; None takes every answer with status 200.

    Returns:
        The load.
    """
    load = Load()
    started = time.perf_counter()
    turns = _due(started, seconds, rate)
    numbers = itertools.count()

    async def one_connection() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        async for due in turns():
            place = next(numbers) % len(requests)
            try:
                connection = connection or await asyncio.open_connection(host, port)
                status, body, kept = await _exchange(connection, requests[place])
            except (OSError, asyncio.IncompleteReadError) as error:
                load.failures[type(error).__name__] += 1
                await _closed(connection)
                connection = None
                continue
            if status != 200:
                load.failures[str(status)] += 1
            elif check is not None and not check(place, body):
                load.failures["wrong answer"] += 1
            else:
                load.latencies.append(time.perf_counter() - due)
            if not kept:
                await _closed(connection)
                connection = None
        await _closed(connection)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(one_connection())
    load.seconds = time.perf_counter() - started
    return load


def _due(started: float, seconds: float, rate: float | None) -> Callable[[], AsyncIterator[float]]:
    """Makes what tells each connection when its next request is due, until time is up."""
    if rate is None:

        async def at_once() -> AsyncIterator[float]:
            while (now := time.perf_counter()) < started + seconds:
                yield now

        return at_once
    places = itertools.count()

    async def by_rate() -> AsyncIterator[float]:
        while (due := started + next(places) / rate) < started + seconds:
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            yield due

    return by_rate


async def _exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, bytes, bool]:
    reader, writer = connection
    writer.write(request)
    head = (await reader.readuntil(_END)).lower()
    status = int(head[9:12])
    length = head.find(b"content-length:")
    if length < 0:
        raise ConnectionError("an answer without its length")
    body = await reader.readexactly(int(head[length + 15 : head.index(b"\r", length)]))
    return status, body, b"connection: close" not in head


async def _closed(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if connection is not None:
        connection[1].close()
        with contextlib.suppress(OSError):
            await connection[1].wait_closed()
