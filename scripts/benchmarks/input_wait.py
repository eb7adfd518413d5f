"""Which share of a train step waits for its batch, and what it costs to watch a run at the defaults.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/input_wait.py [--quick] [--rounds 3] [--only texts]

The waits are those that tfapp writes into `history.csv`: the time from the end of a step until the next batch
was there, over the time of all steps, of the second epoch. Texts are MiniLM on SST-2, batch 32, as they come;
images are the magnetic tiles, JPEG files that are decoded, resized to 224 x 224 and augmented in every step
of a MobileNetV2. Watching is what the callbacks of the board, of `progress.json` and of the speed take of
that epoch's steps' time; counting within a step is timed by itself, on the
model's variables.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from reporting import about_run, data_file, markdown_table, report, save

from tfapp import Phase, build_image_classifier, build_text_classifier, load_image_data, load_text_data, train
from tfapp.training.board import BoardKeeper
from tfapp.training.live import LiveProgress
from tfapp.training.step_meter import StepMeter
from tfapp.training.throughput import Pace

NEVER = 10**9


WATCHING = (Pace, BoardKeeper, LiveProgress)
HOOKS = ("on_train_batch_begin", "on_train_batch_end")


class Clock(keras.callbacks.Callback):
    """Times the steps of an epoch, and the watching in between."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, int]] = []
        self.watching = self.counting = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.ends, self.watching = [(time.perf_counter(), 0)], 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append((time.perf_counter(), batch + 1))

    def on_train_end(self, logs: Any = None) -> None:
        self.counting = counting(self.model)

    @property
    def milliseconds(self) -> float:
        (first, done), (last, all_done) = self.ends[0], self.ends[-1]
        return 1e3 * (last - first) / (all_done - done)

    @property
    def share(self) -> float:
        return 100 * self.watching / (self.ends[-1][0] - self.ends[0][0])


@contextlib.contextmanager
def timed(clock: Clock) -> Iterator[None]:
    """Adds the time of the callbacks that watch to a clock."""
    before = {(kind, name): getattr(kind, name) for kind in WATCHING for name in HOOKS}

    def timing(hook: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> None:
            began = time.perf_counter()
            hook(*arguments, **options)
            clock.watching += time.perf_counter() - began

        return call

    for (kind, name), hook in before.items():
        setattr(kind, name, timing(hook))
    try:
        yield
    finally:
        for (kind, name), hook in before.items():
            setattr(kind, name, hook)


def counting(trainer: Any, steps: int = 500) -> float:
    """Microseconds that a step counts about itself."""
    meter = StepMeter()
    batch = {"padding_mask": tf.ones((32, 32), tf.int32)}

    @tf.function
    def count() -> None:
        for _ in tf.range(steps):
            meter.arrived(batch, tf.zeros(32, tf.int32))
            meter.ended(tf.constant(0.0), trainer.trainable_variables)

    count()
    began = time.perf_counter()
    count()
    return 1e6 * (time.perf_counter() - began) / steps


def texts(rows: int) -> tuple[Any, Any, dict[str, Any]]:
    files = {name: data_file("sst2", f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_text_data(files["train"], validation=files["validation"], test=files["test"])
    data = replace(
        data, train=replace(data.train, texts=data.train.texts[:rows], labels=data.train.labels[:rows])
    )
    few = replace(data.validation, texts=data.validation.texts[:32], labels=data.validation.labels[:32])
    return build_text_classifier("minilm-l6", classes=data.classes, seed=0), replace(data, validation=few), {}


def images(rows: int) -> tuple[Any, Any, dict[str, Any]]:
    data = load_image_data(data_file("magnetic_tile.tar.gz"), validation_fraction=0.15, seed=7)
    data = replace(data, train=first(data.train, rows), validation=first(data.validation, 32))
    model = build_image_classifier("mobilenet-v2", classes=data.classes, image_size=224, seed=0)
    return model, data, {"augment": "medium"}


def first(split: Any, rows: int) -> Any:
    images = split.images.take(range(min(rows, len(split))))
    return replace(split, images=images, labels=split.labels[:rows], digests=split.digests[:rows])


def measure(make: Any, rows: int) -> dict[str, float]:
    model, data, options = make(rows)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, timed(clock):
        history = train(
            model,
            data,
            phases=[Phase("all", 2, 5e-5)],
            batch_size=32,
            keep_best=False,
            seed=0,
            callbacks=[clock],
            checkpoint_steps=NEVER,
            run_dir=folder,
            verbose=False,
            **options,
        )
    last = history.epochs[-1]
    return {
        "wait": 100 * last["input_wait"],
        "examples_per_second": last["examples_per_second"],
        "milliseconds": clock.milliseconds,
        "watching": clock.share,
        "counting": clock.counting,
        "steps": -(-len(data.train) // 32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6400, help="training rows of an epoch")
    parser.add_argument("--only", choices=("texts", "images"))
    parser.add_argument("--quick", action="store_true", help="one round on 320 rows")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    rows, rounds = (320, 1) if options.quick else (options.rows, options.rounds)
    about, table, measured = about_run(), [], {}
    for name, make in (("texts", texts), ("images", images)):
        if options.only not in (None, name):
            continue
        found = [measure(make, rows) for _ in range(rounds)]
        measured[name] = found
        columns = {key: [each[key] for each in found] for key in found[0]}
        middle = {key: statistics.median(values) for key, values in columns.items()}
        table.append(
            [
                f"{name}, {middle['steps']:.0f} steps",
                f"{middle['examples_per_second']:.1f}",
                f"{middle['milliseconds']:.1f}",
                f"{middle['wait']:.2f}",
                f"{min(columns['wait']):.2f} to {max(columns['wait']):.2f}",
                f"{middle['watching']:.2f}",
                f"{middle['counting']:.0f}",
            ]
        )
    header = (
        "second epoch",
        "examples/s",
        "ms a step",
        "waits for input, %",
        "over rounds",
        "watching, %",
        "counting, microseconds a step",
    )
    report("Waiting for input", about, markdown_table(header, table), [f"{rounds} rounds"])
    save(options.output, "input-wait", about, {"measured": measured})


if __name__ == "__main__":
    main()
