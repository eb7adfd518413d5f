"""How tfapp speaks: plain lines on standard error, unless a program has configured logging."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

# Just below INFO, so that a level that somebody else has set is told apart.
_OWN_LEVEL = logging.INFO - 1


class PlainHandler(logging.StreamHandler[TextIO]):
    """Writes messages to what is standard error at the moment; bars and notebooks put theirs in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message."""
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Gives the message alone, and the level of warnings and errors before it."""
        message = super().format(record)
        return f"{record.levelname.lower()}: {message}" if record.levelno >= logging.WARNING else message


class _UnconfiguredHandler(PlainHandler):
    """Is silent as soon as the logger ``tfapp`` or the root has another handler."""

    def emit(self, record: logging.LogRecord) -> None:
        if [*logging.getLogger("tfapp").handlers, *logging.getLogger().handlers] == [self]:
            super().emit(record)


def show_messages() -> None:
    """Shows messages from INFO on as plain lines, as long as nobody has configured logging.

    ``logging.getLogger("tfapp").setLevel("WARNING")`` silences them. Where the root logger has
    handlers, its level decides, as it does for every logger without one.
    """
    logger = logging.getLogger("tfapp")
    if logger.level == logging.NOTSET:
        logger.setLevel(_OWN_LEVEL)
        logger.addFilter(_root_wants)
    if not logger.handlers:
        logger.addHandler(_UnconfiguredHandler())


def _root_wants(record: logging.LogRecord) -> bool:
    root = logging.getLogger()
    own = logging.getLogger("tfapp").level == _OWN_LEVEL
    return not (own and root.handlers) or record.levelno >= root.level
