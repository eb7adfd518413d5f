"""A script in a fresh process, away from this one's packages and variables, and ended when it hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfapp.disk import disk_full
from tfapp.release.runner import DISK_FULL

_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


class ScriptProcess:
    """One process of a script that reads ``request.json`` and writes ``result.json``.

    Args:
        script: The script, run in isolated mode.
        folder: Its only argument, with the request; it gets what the script says on standard error.
        timeout: Seconds after which a wait for it ends it.
    """

    def __init__(self, script: Path, folder: Path, timeout: float) -> None:
        self._script = script
        self._folder = folder
        self._timeout = timeout
        self._timed_out = False
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def start(self) -> None:
        """Starts the process, unless it was told to stop before."""
        if self._stopped:
            return
        with (self._folder / "stderr.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(self._script), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,
            )
        if self._stopped:
            self.stop()

    def says(self, line: str) -> bool:
        """Waits until the process writes a line on standard output.

        Args:
            line: The line.

        Returns:
            Whether it came; False when the process ended without.
        """
        if self._process is None:
            return False
        with self._watched():
            return any(said.strip() == line for said in self._process.stdout or ())

    def tell(self, line: str) -> bool:
        """Writes a line to the process.

        Args:
            line: The line.

        Returns:
            Whether the process is still there.
        """
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            return False
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def end(self, last: str = "") -> tuple[dict[str, Any], str | None]:
        """Waits for the end of the process.

        Args:
            last: What it is told before.

        Returns:
            What it found, and why that cannot be used: None when it can.

        Raises:
            OutputError: When it has filled the disk.
        """
        process = self._process
        if process is None:
            return {}, "its process was not started"
        with self._watched(), contextlib.suppress(BrokenPipeError):
            process.communicate(last)
        try:
            facts = json.loads((self._folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {}
        return facts, self._problem(process.returncode, facts)

    @property
    def runs(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the process if it is still there."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        def end() -> None:
            self._timed_out = True
            self.stop()

        timer = threading.Timer(self._timeout, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _problem(self, status: int, facts: dict[str, Any]) -> str | None:
        if self._timed_out:
            return f"did not answer within {self._timeout:.0f} s"
        if status == DISK_FULL:
            raise disk_full(self._folder)
        if "error" in facts:
            return f"cannot be run: {facts['error']}"
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}{self._last_words()}"
        if status or not facts:
            return f"its process ended with status {status}{self._last_words()}"
        return None

    def _last_words(self) -> str:
        text = (self._folder / "stderr.txt").read_bytes().decode("utf-8", "replace").strip()
        return f" ({text.splitlines()[-1][:300]})" if text else ""
