"""Progress bars for long work, shown to people at a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Passes items on and shows how many of them are done.

    Args:
        items: What is worked on, one after another.
        total: How many there are.
        label: What is done, in a few words.

    Yields:
        The items. Nothing is shown when standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield from items
        return

    from rich.console import Console
    from rich.progress import track as show

    yield from show(items, label, total=total, console=Console(stderr=True), transient=True)
