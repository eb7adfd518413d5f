"""Progress bars: for people at a terminal, and for nobody else."""

import io
import logging
import sys

from tfapp.progress import track
from tfapp.terminal import log_to_terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_the_items_pass_and_nothing_is_shown(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    assert list(track(iter("abc"), 3, "write artifacts")) == ["a", "b", "c"]
    assert shown.getvalue() == ""


def test_at_a_terminal_the_label_is_shown_and_log_lines_stand_whole(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    logger = logging.getLogger("tfapp")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    log_to_terminal()
    try:
        for item in track("abc", 3, "write artifacts"):
            logger.info("export: %s", item)
    finally:
        logger.setLevel(level)
    assert "write artifacts" in shown.getvalue()
    assert [f"export: {item}\n" in shown.getvalue() for item in "abc"] == [True] * 3
    assert sys.stderr is shown
