"""The computations of one request, which last until they end, and not until their answer is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
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

    def wait_for(self, future: Future[Value]) -> asyncio.Future[Value]:
        """Takes a computation in.

        Args:
            future: What an executor has been given.

        Returns:
            What to await; to cancel it does not end the computation once it runs.
        """
        self._begun.append(future)
        self._open += 1
        asyncio.wrap_future(future).add_done_callback(self._one_ended)
        return asyncio.wrap_future(future)

    def leave(self) -> None:
        """Takes back what has not begun yet; nothing more is taken in."""
        for future in self._begun:
            future.cancel()
        self._close_one()

    def _one_ended(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # whoever waits is told; one that nobody waits for any more is no news
        self._close_one()

    def _close_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._ended()
