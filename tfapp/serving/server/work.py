"""The computations of one request, which last until they end, and not until their answer is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Value = TypeVar("Value")


class Work:
    """What was begun for one request. A thread that computes cannot be told to stop.

    All methods run on the event loop.

    Args:
        ended: Called once, when no more is begun and the last computation has ended.
    """

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended
        self._begun: list[Future[Any]] = []
        self._open = 1

    async def results(self, futures: Sequence[Future[Value]]) -> list[Value]:
        """Waits for computations; to give up waiting ends none of them.

        Args:
            futures: What executors have been given.

        Returns:
            What they answer, in their order. The first that fails raises.
        """
        waited = [self._count(future) for future in futures]
        done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_EXCEPTION)
        for each in done:
            each.result()
        return [each.result() for each in waited]

    async def result(self, pool: Executor, call: Callable[..., Value], *arguments: Any) -> Value:
        """Waits for one call in a thread, which lets go of its arguments when it is taken back.

        Args:
            pool: Where it is called.
            call: What is called.
            arguments: With what.

        Returns:
            What it answers.
        """
        held = [arguments]
        future = pool.submit(lambda: call(*held.pop()))
        # Executors keep what was taken back until they come to it.
        future.add_done_callback(lambda _: held.clear())
        (answer,) = await self.results([future])
        return answer

    def leave(self) -> None:
        """Takes back what has not begun yet; nothing more is taken in."""
        for future in self._begun:
            future.cancel()
        self._close_one()

    def _count(self, future: Future[Value]) -> asyncio.Future[Value]:
        self._begun.append(future)
        self._open += 1
        counted = asyncio.wrap_future(future)
        counted.add_done_callback(self._one_ended)
        return counted

    def _one_ended(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # whoever waits is told; one that nobody waits for any more is no news
        self._close_one()

    def _close_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._ended()
