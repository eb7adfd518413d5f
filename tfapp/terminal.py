"""How the command line speaks: plain lines, tables, and no chatter of the libraries."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tfapp.messages import PlainHandler

_GPU_DEVICE = Path("/dev/nvidia0")


def log_to_terminal() -> None:
    """Sends what the library has to say to standard error, as plain lines."""
    logger = logging.getLogger("tfapp")
    logger.setLevel(logging.INFO)
    if not any(type(handler) is PlainHandler for handler in logger.handlers):
        logger.addHandler(PlainHandler())
        logger.propagate = False


def load_tensorflow() -> None:
    """Imports TensorFlow without the lines that its C++ side prints while it starts.

    They are shown after all when the import fails, or when the machine has a GPU that TensorFlow cannot use.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for library in ("absl", "tensorflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    with _standard_error_in_file() as lines:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU") or not _GPU_DEVICE.exists():
            lines.seek(0)
            lines.truncate()


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows as a table on standard output.

    Args:
        title: Title above the table; may be empty.
        rows: Rows with the same keys, which become the header unless all are blank.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headers = list(rows[0]) if rows else []
    shows_header = any(header.strip() for header in headers)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, show_header=shows_header)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(row[header])) for header in headers))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def fitted(text: str, cells: int) -> str:
    """Cuts a text to a width; Chinese characters are two cells wide.

    Args:
        text: Any text.
        cells: The most cells of the terminal that it may take.

    Returns:
        The text, or its beginning and three dots.
    """
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else set_cell_size(text, cells - 3).rstrip() + "..."


def shorten(path: Path) -> str:
    """Shows a path relative to the current folder when it lies below it.

    Args:
        path: An absolute path.

    Returns:
        The path for people.
    """
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextlib.contextmanager
def _standard_error_in_file() -> Iterator[Any]:
    """Collects everything the process writes to standard error, and passes on what is left of it at the end.

    C++ code writes to the descriptor itself, so `contextlib.redirect_stderr` would not catch it.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as lines:
        kept = os.dup(2)
        os.dup2(lines.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            lines.seek(0)
            click.echo(lines.read().decode(errors="replace"), err=True, nl=False)
