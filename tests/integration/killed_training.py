"""Trains a tiny model again and again, each time in a fork that may be killed.

Started as ``killed_training.py VOCABULARY.json``. Each line on standard input is a trial, as JSON:
``"run_dir"`` is where it trains, and ``"seconds"`` after how long it is killed, null for not at all. Each
line on standard output tells ``status``, ``seconds``, and of a run that ended the ``digest`` of its weights
and history.

The libraries are imported once. No operator runs before a fork, so no thread of TensorFlow is lost in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
from helpers import tiny_text_classifier

from tfapp.data.text import TextData, TextSplit
from tfapp.training import Phase, train

CLASSES = ("a", "b")
WORDS = ("market", "bank", "price", "team", "goal", "match", "the", "of")
PHASES = (
    Phase("head", epochs=3, learning_rate=0.02),
    Phase(1, epochs=2, learning_rate=0.01),
    Phase("all", epochs=3, learning_rate=0.01),
)


def split(name: str, rows: int, seed: int) -> TextSplit:
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(3, 9))) for _ in range(rows)]
    return TextSplit(name, tuple(texts), np.arange(rows, dtype=np.int32) % 2, CLASSES)


def train_once(vocabulary: list[str], run_dir: Path, phases: tuple[Phase, ...] = PHASES) -> str:
    """Trains with dropout, shuffling and an adversarial objective; gives the digest of what came out."""
    tf.config.experimental.enable_op_determinism()
    model = tiny_text_classifier(vocabulary, CLASSES)
    data = TextData(split("train", 90, 1), split("validation", 12, 2), split("test", 4, 3), CLASSES, None, 5)
    history = train(
        model,
        data,
        phases=phases,
        batch_size=4,
        objective="fgm",
        precision="float32",
        checkpoint_steps=2,
        run_dir=run_dir,
        verbose=False,
    )
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(value.tobytes())
    timed = ("seconds", "examples_per_second", "input_wait")
    rows = [{name: value for name, value in row.items() if name not in timed} for row in history.epochs]
    digest.update(json.dumps(rows).encode())
    return digest.hexdigest()


def trial(vocabulary: list[str], *, run_dir: str, seconds: float | None) -> dict[str, object]:
    """Forks a run, kills it or not, and tells how it ended."""
    hears, says = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(hears)
            os.dup2(2, 1)  # the answers of the parent stand on standard output
            os.write(says, train_once(vocabulary, Path(run_dir)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(says)
    with os.fdopen(hears, "rb", buffering=0) as pipe:
        if seconds is not None and not select.select([pipe], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        digest = pipe.read(64).decode()
    _, status = os.waitpid(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "digest": digest,
    }


if __name__ == "__main__":
    VOCABULARY = json.loads(Path(sys.argv[1]).read_text())
    for line in sys.stdin:
        print(json.dumps(trial(VOCABULARY, **json.loads(line))), flush=True)  # noqa: T201
