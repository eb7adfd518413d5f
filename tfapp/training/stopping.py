"""Signals that end a run, put off until what was learned is safe."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_LOG = logging.getLogger("tfapp")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class PutOff:
    """A signal that waits.

    Attributes:
        number: Its number; None as long as there is none.
    """

    number: int | None = None


@contextlib.contextmanager
def signals_put_off(active: bool = True) -> Iterator[PutOff]:
    """Puts SIGTERM and SIGINT off to the end of the block, and lets them do then what they did before.

    A second signal is not put off. Outside the main thread, which alone gets signals, nothing changes.

    Args:
        active: Whether to do so at all.

    Yields:
        What tells the block that it should end soon.
    """
    waiting = PutOff()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def put_off(number: int, _frame: FrameType | None) -> None:
        if waiting.number is not None:
            restore()
            signal.raise_signal(number)
            return
        waiting.number = number
        _LOG.info("stopping as soon as a checkpoint is written; a second signal stops at once")

    # A handler that was not set from Python, None, cannot be put back.
    main = threading.current_thread() is threading.main_thread()
    if not (active and main) or None in before.values():
        yield waiting
        return
    for number in _SIGNALS:
        signal.signal(number, put_off)
    try:
        yield waiting
    finally:
        restore()
        if waiting.number is not None:
            signal.raise_signal(waiting.number)
