"""What checkpoints every 100 steps cost: whole fine-tuning of MiniLM on SST-2 with and without them.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/checkpoint_cost.py [--quick] [--rounds 5]

One process trains an epoch of 400 steps again and again, in turn with no checkpoint within it, with one
every `--steps`, and as often as tfapp finds right, from the same weights on the same rows. The time is that
from the end of the first steps, which compile, to the end of the last; checkpoints are written meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from reporting import about_run, data_file, markdown_table, report, save

from tfapp import Phase, build_text_classifier, load_text_data, train

NEVER = 10**9


class Clock(keras.callbacks.Callback):
    """The time of all steps but the first that Keras runs, which compile."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.last = 0.0
        self.left_out = self.done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.last, self.done = time.perf_counter(), batch + 1
        if not self.first:
            self.first, self.left_out = self.last, batch + 1


def measure(data: Any, steps: int | None) -> float:
    """Milliseconds a step."""
    model, clock = build_text_classifier("minilm-l6", classes=data.classes, seed=0), Clock()
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            data,
            phases=[Phase("all", 1, 5e-5)],
            keep_best=False,
            seed=0,
            callbacks=[clock],
            checkpoint_steps=steps,
            run_dir=folder,
            verbose=False,
        )
    return 1e3 * (clock.last - clock.first) / (clock.done - clock.left_out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="between checkpoints")
    parser.add_argument("--quick", action="store_true", help="one round on 640 rows")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    files = {name: data_file("sst2", f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_text_data(files["train"], validation=files["validation"], test=files["test"])
    validation = replace(
        data.validation, texts=data.validation.texts[:32], labels=data.validation.labels[:32]
    )
    rows = 640 if options.quick else 400 * 32
    learned = replace(
        data.train, texts=(data.train.texts * 2)[:rows], labels=np.tile(data.train.labels, 2)[:rows]
    )
    data = replace(data, train=learned, validation=validation)
    about = about_run()
    settings = {"none": NEVER, f"every {options.steps} steps": options.steps, "auto": None}
    measured: dict[str, list[float]] = {name: [] for name in settings}
    measure(data, NEVER)  # the first run of a process is slower
    for _ in range(1 if options.quick else options.rounds):
        for name, steps in settings.items():
            measured[name].append(measure(data, steps))
    table = []
    for name, values in measured.items():
        ratios = [value / plain for value, plain in zip(values, measured["none"], strict=True)]
        more = " to ".join(f"{100 * (ratio - 1):+.1f}" for ratio in (min(ratios), max(ratios)))
        table.append(
            [name, f"{statistics.median(values):.1f}", f"{100 * (statistics.median(ratios) - 1):+.1f}", more]
        )
    header = ("checkpoints within the epoch", "ms a step", "more than none, %", "over rounds")
    report("What checkpoints cost", about, markdown_table(header, table), [f"{len(data.train):,} rows"])
    save(options.output, "checkpoint-cost", about, {"measured": measured})


if __name__ == "__main__":
    main()
