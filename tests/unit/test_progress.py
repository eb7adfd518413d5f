"""The bar on the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from tfapp.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_items_pass_and_a_bar_is_shown_on_a_terminal_only(monkeypatch, stream, shown):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(track(iter("abc"), 3, "reading letters")) == ["a", "b", "c"]
    assert ("reading letters" in sys.stderr.getvalue()) == shown
    assert bool(sys.stderr.getvalue()) == shown
