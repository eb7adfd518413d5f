"""Changes to a workflow file that leave its comments and its order as they are."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfapp.disk import replace_file, writing
from tfapp.errors import ConfigError, OutputError


class WorkflowFile:
    """A workflow file as it was when it was opened, whose values can be changed.

    Args:
        path: The TOML file; through a link, what it leads to.

    Raises:
        OutputError: When the file, or its folder, cannot be written.
        ConfigError: When it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            self._content = self.path.read_bytes()
            mode = self.path.stat().st_mode
        except OSError as error:
            raise ConfigError(f"{path}: the workflow file cannot be read: {error.strerror}") from error
        # The superuser may write everything, but a file that is read-only is meant to stay as it is.
        read_only = not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
        if read_only or not os.access(self.path, os.W_OK) or not os.access(self.path.parent, os.W_OK):
            raise OutputError(
                f"{path}: the file, or its folder, is read-only; make both writable, or write nothing there."
            )

    def write(self, values: Mapping[str, Any]) -> None:
        """Sets keys at once and whole; comments, order and all other values stay.

        Args:
            values: Values by dotted key, such as ``train.precision``.

        Raises:
            OutputError: When the file has changed since it was opened, or cannot be written.
            ConfigError: When a key leads through a value that has no keys.
        """
        import tomlkit

        text = self._content.decode("utf-8-sig")
        document = tomlkit.parse(text)
        for key, value in values.items():
            *sections, name = key.split(".")
            place: Any = document
            for section in sections:
                if section not in place:
                    place[section] = tomlkit.table()
                place = place[section]
                if not isinstance(place, Mapping):
                    raise ConfigError(f"{self.path}: {section} is a value, so it has no key {name!r}.")
            with _before_last_comments(place):
                place[name] = value
        changed = document.as_string()
        if "\n" in text and text.count("\n") == text.count("\r\n"):
            changed = changed.replace("\r\n", "\n").replace("\n", "\r\n")
        mark = "\N{BOM}" if self._content.startswith(b"\xef\xbb\xbf") else ""
        with writing(self.path.parent):
            if self.path.read_bytes() != self._content:
                raise OutputError(
                    f"{self.path}: the file has changed meanwhile, so nothing was written; try again."
                )
            mode = stat.S_IMODE(self.path.stat().st_mode)
            replace_file(self.path, mark + changed, mode=mode)


@contextlib.contextmanager
def _before_last_comments(table: Any) -> Iterator[None]:
    """Lets a key be added before a section's last comments, which belong to the section after it."""
    from tomlkit.items import Table

    body = table.value.body if isinstance(table, Table) else []
    last: list[Any] = []
    while body and body[-1][0] is None:
        last.insert(0, body.pop())
    yield
    body.extend(last)
