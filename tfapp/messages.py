"""What tfapp says in scripts and notebooks that have not configured logging."""

from __future__ import annotations

import logging
import sys
from typing import TextIO


class _PlainHandler(logging.StreamHandler[TextIO]):
    """Writes messages to standard error until the logger ``tfapp`` or the root has another handler."""

    def emit(self, record: logging.LogRecord) -> None:
        if [*logging.getLogger("tfapp").handlers, *logging.getLogger().handlers] == [self]:
            self.stream = sys.stderr  # as it is now: notebooks replace it
            super().emit(record)


def show_messages() -> None:
    """Shows messages from INFO on as plain lines, as long as nobody has configured logging.

    ``logging.getLogger("tfapp").setLevel("WARNING")`` silences them.
    """
    logger = logging.getLogger("tfapp")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_PlainHandler())
