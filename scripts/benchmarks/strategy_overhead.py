"""What sharing batches among devices costs: MiniLM on SST-2 in one process and shared by two, in one run.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/strategy_overhead.py [--quick] [--rounds 5]

Every way trains the same rows in processes of its own, once a round, in turn: alone with two threads, with
MirroredStrategy on two virtual devices of the same processor, and in two workers of one thread each under
MultiWorkerMirroredStrategy. The time is that of the steps of a whole epoch but the first ones, which compile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting import about_run, data_file, markdown_table, report, save

from tfapp.launching import environments

WAYS = {
    "one process": {},
    "one process, Keras's own passes": {"plain": True},
    "mirrored, 2 virtual devices": {"virtual_devices": 2},
    "2 workers": {"workers": 2},
}
LEFT_OUT = 64


def measure(way: dict[str, Any], rows: int, batch_size: int) -> None:
    """Trains and prints the milliseconds of a step; runs in a process of its own."""
    import keras

    from tfapp import Phase, build_text_classifier, load_text_data, make_strategy, train
    from tfapp.training import run as running

    if way.get("plain"):
        running._faster_parts = lambda *_: None
    strategy = make_strategy(virtual_devices=way.get("virtual_devices"))

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[tuple[int, float]] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.times.append((batch + 1, time.perf_counter()))

    files = {name: data_file("sst2", f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_text_data(files["train"], validation=files["validation"], test=files["test"])
    train_split = replace(data.train, texts=data.train.texts[:rows], labels=data.train.labels[:rows])
    few = replace(data.validation, texts=data.validation.texts[:32], labels=data.validation.labels[:32])
    data = replace(data, train=train_split, validation=few)
    clock = Clock()
    with strategy.scope():
        model = build_text_classifier("minilm-l6", classes=data.classes, seed=0)
        train(
            model,
            data,
            phases=[Phase("all", 1, 5e-5)],
            batch_size=batch_size,
            precision="float32",
            keep_best=False,
            callbacks=[clock],
            verbose=False,
        )
    began = next(point for point in clock.times if point[0] >= LEFT_OUT)
    ended = clock.times[-1]
    print(json.dumps({"milliseconds": 1000 * (ended[1] - began[1]) / (ended[0] - began[0])}), flush=True)


def one_round(name: str, options: argparse.Namespace) -> float:
    way = WAYS[name]
    command = [sys.executable, __file__, "--way", name, "--rows", str(options.rows)]
    command += ["--batch-size", str(options.batch_size)]
    variables = environments(way["workers"]) if "workers" in way else [{}]
    started = [
        subprocess.Popen(command, env={**os.environ, **each}, stdout=subprocess.PIPE, text=True)
        for each in variables
    ]
    outputs = [process.communicate(timeout=3600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name} failed")
    return max(json.loads(output.splitlines()[-1])["milliseconds"] for output in outputs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few rows: a check only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=6_400, help="of training")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rows = 1, 3_200
    if options.way:
        measure(WAYS[options.way], options.rows, options.batch_size)
        return
    about = about_run()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        for name in WAYS:
            found[name].append(one_round(name, options))
            print(f"round {number + 1}, {name}: {found[name][-1]:.1f} ms", flush=True)
    first = found["one process"]
    rows = [
        [
            name,
            f"{statistics.median(times):.1f}",
            f"{statistics.median(time / base for time, base in zip(times, first, strict=True)):.2f}",
        ]
        for name, times in found.items()
    ]
    table = markdown_table(["", "step, ms", "x one process"], rows)
    notes = [f"batch {options.batch_size} (of all devices), float32, {options.rows:,} rows"]
    report("Strategies", about, table, [*notes, f"medians of {options.rounds} rounds"])
    save(options.output, "strategy-overhead", about, {"rounds": found})


if __name__ == "__main__":
    main()
