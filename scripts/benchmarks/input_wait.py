"""Which share of a train step waits for its batch, and what the board costs beside the steps.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/input_wait.py [--quick] [--rounds 3] [--only texts]

The waits are those that tfapp writes into `history.csv`: the time from the end of a step until the next batch
was there, over the time of all steps, of the second epoch. Texts are MiniLM on SST-2, batch 32, as they
come; images are the magnetic tiles, JPEG files that are decoded, resized to 224 x 224 and augmented in every
step of a MobileNetV2. The board's cost is the time of a step with `tensorboard=True` over that without, in
turn, validation and checkpoints left out.
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
from reporting import about_run, data_file, markdown_table, report, save

from tfapp import Phase, build_image_classifier, build_text_classifier, load_image_data, load_text_data, train

NEVER = 10**9


class Clock(keras.callbacks.Callback):
    """The time from the end of an epoch's first steps to the end of its last, callbacks counted in."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, int]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.ends = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append((time.perf_counter(), batch + 1))

    @property
    def milliseconds(self) -> float:
        (first, done), (last, all_done) = self.ends[0], self.ends[-1]
        return 1e3 * (last - first) / (all_done - done)


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


def measure(make: Any, rows: int, *, board: bool) -> dict[str, float]:
    model, data, options = make(rows)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
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
            tensorboard=board,
            verbose=False,
            **options,
        )
    last = history.epochs[-1]
    return {
        "wait": 100 * last["input_wait"],
        "examples_per_second": last["examples_per_second"],
        "milliseconds": clock.milliseconds,
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
        found = [{board: measure(make, rows, board=board) for board in (False, True)} for _ in range(rounds)]
        measured[name] = [{str(board): values for board, values in each.items()} for each in found]
        waits = [each[True]["wait"] for each in found]
        costs = [100 * (each[True]["milliseconds"] / each[False]["milliseconds"] - 1) for each in found]
        table.append(
            [
                f"{name}, {found[0][True]['steps']:.0f} steps",
                f"{statistics.median(each[True]['examples_per_second'] for each in found):.1f}",
                f"{statistics.median(waits):.2f}",
                f"{min(waits):.2f} to {max(waits):.2f}",
                f"{statistics.median(each[True]['milliseconds'] for each in found):.1f}",
                f"{statistics.median(costs):+.1f}",
                f"{min(costs):+.1f} to {max(costs):+.1f}",
            ]
        )
    header = (
        "second epoch",
        "examples/s",
        "waits for input, %",
        "over rounds",
        "ms a step",
        "board costs, %",
        "over rounds",
    )
    report("Waiting for input", about, markdown_table(header, table), [f"{rounds} rounds"])
    save(options.output, "input-wait", about, {"measured": measured})


if __name__ == "__main__":
    main()
