"""Exports a tiny model again and again, each time in a fork that is killed at a moment that it is told.

Started as ``killed_exports.py DIRECTORY VOCABULARY.json``. Each line on standard input is a trial, as JSON:
``{"event": N}`` kills before the N-th time that the export opens, makes, renames or removes something below
the directory, ``{"seconds": S}`` so long after its start, and ``{}`` not at all; ``"variants"`` says what it
exports, ``["float32"]`` by default. Each line on standard output
tells ``status``, as `os.waitpid` does, ``seconds``, and of an export that ended how many ``events`` it had.

The libraries are imported once. No operator runs before a fork, so no thread of TensorFlow is lost in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import ai_edge_litert.interpreter  # noqa: F401
import keras_hub  # noqa: F401
import numpy as np
from helpers import tiny_text_classifier

from tfapp.data.text import TextSplit
from tfapp.release import Budget, exporting
from tfapp.release.report_page import release_page  # noqa: F401

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile")
# Three rows say nothing about a random model; what is tried here is whether files are whole.
LENIENT = Budget(min_agreement=0.0, max_accuracy_drop=1.0, max_scale_error=1.0, max_golden_difference=1.0)


def export_once(
    directory: Path, vocabulary: list[str], variants: Sequence[str], event: int | None, says: int
) -> None:
    """Exports in this process, and kills it at an event."""
    classes = ("business", "sport")
    model = tiny_text_classifier(vocabulary, classes)
    split = TextSplit("test", ("good film", "bad share price", "the game"), np.array([0, 1, 1]), classes)
    seen = 0

    def count(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if name not in EVENTS or not arguments or not isinstance(arguments[0], str | bytes | Path):
            return
        if str(directory) in os.fsdecode(arguments[0]):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    os.write(says, b"started\n")
    exporting.export(model, directory, check_with=split, variants=variants, budget=LENIENT)
    os.write(says, f"{seen}\n".encode())


def trial(
    directory: Path,
    vocabulary: list[str],
    *,
    variants: Sequence[str] = ("float32",),
    event: int | None = None,
    seconds: float | None = None,
) -> dict[str, object]:
    """Forks an export, kills it from here or lets it kill itself, and tells how it ended."""
    hears, says = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(hears)
            os.dup2(2, 1)  # the answers of the parent stand on standard output
            export_once(directory, vocabulary, variants, event, says)
            status = 0
        finally:
            os._exit(status)
    os.close(says)
    with os.fdopen(hears, "rb", buffering=0) as pipe:
        pipe.read(len("started\n"))
        started = time.monotonic()
        if seconds is not None and not select.select([pipe], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        events = pipe.read(20)
    _, status = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "events": int(events or 0),
    }


if __name__ == "__main__":
    VOCABULARY = json.loads(Path(sys.argv[2]).read_text())
    for line in sys.stdin:
        print(json.dumps(trial(Path(sys.argv[1]), VOCABULARY, **json.loads(line))), flush=True)  # noqa: T201
