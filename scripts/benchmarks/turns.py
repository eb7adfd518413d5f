"""Lets processes measure in turns: one worker measures a block while the others wait for their input.

Needs the standard library only, so that it runs in every peer's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent


class WorkerError(Exception):
    """A worker ended without an answer."""


class Worker:
    """A process that answers one JSON line for each JSON line that it is given."""

    def __init__(self, python: str | Path, script: str, arguments: list[object], *, threads: int) -> None:
        several = {"TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true"}
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        quiet = {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
        self.command = [str(python), str(HERE / script), *map(str, arguments)]
        self._process = subprocess.Popen(
            self.command,
            env=os.environ | several | counts | quiet,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{' '.join(self.command)}\nended with {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def work(about: dict[str, Any], measure: Callable[..., dict[str, Any]]) -> None:
    """Runs a worker: says what it is, then answers requests until its input ends.

    Args:
        about: versions and settings, sent once when the worker is ready.
        measure: takes a request's fields by name.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the error stream, not between the answers
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), file=answers, flush=True)
