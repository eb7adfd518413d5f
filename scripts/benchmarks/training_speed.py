"""Training speed of tfapp beside its peers, in one run on two cores: prints a markdown table with ratios.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/training_speed.py [--quick] [--output FOLDER]

Every participant runs in a process of its own, once a round, in turn, so that what else the machine does
hits all alike. Each is warmed up by steps that are not counted. The figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report, save
from rounds import Run, medians, run_rounds

from tfapp.assets import ASSETS, fetch

OURS = {"float32": "tfapp float32", "bfloat16": "tfapp bfloat16"}


def participants(options: argparse.Namespace) -> dict[str, Run]:
    """Maps the name of each participant to a function that runs one round of it."""
    train = data_file("sst2", "train.csv")
    model = fetch(ASSETS["minilm-l6"])
    python = peer_python("transformers", env_dir=options.env_dir)
    quick = options.quick

    def ours(mode: str, precision: str, *more: object) -> Run:
        limit = ("--limit", 320) if quick else ()
        return lambda seed: run_json(
            sys.executable, "ours.py", [mode, "--precision", precision, "--seed", seed, *limit, *more]
        )

    def transformers(precision: str, *more: object) -> Run:
        steps = (3, 1) if quick else (60, 6)
        fixed = ["--mode", "speed", "--model", model, "--train", train, "--threads", options.cores]
        fixed += ["--steps", steps[0], "--warmup-steps", steps[1], "--precision", precision, *more]
        return lambda seed: run_json(python, "peer_transformers.py", [*fixed, "--seed", seed])

    def keras_hub(steps: int, warmup: int, *more: object) -> Run:
        fixed = ["--model", model, "--train", train, "--steps", 1 if quick else steps]
        fixed += ["--warmup-steps", 1 if quick else warmup, *more]
        return lambda seed: run_json(sys.executable, "peer_keras_hub.py", [*fixed, "--seed", seed])

    return {
        "peak float32": ours("peak", "float32"),
        "peak bfloat16": ours("peak", "mixed_bfloat16"),
        OURS["float32"]: ours("speed", "float32"),
        "transformers float32": transformers("float32"),
        "transformers float32, group_by_length": transformers("float32", "--group-by-length"),
        "keras-hub fit, 128": keras_hub(15, 3, "--sequence-length", 128),
        OURS["bfloat16"]: ours("speed", "mixed_bfloat16"),
        "transformers bfloat16": transformers("bfloat16"),
        "transformers bfloat16, group_by_length": transformers("bfloat16", "--group-by-length"),
        "keras-hub fit, 128, bfloat16": keras_hub(
            15, 3, "--sequence-length", 128, "--precision", "mixed_bfloat16"
        ),
        "keras-hub fit as it comes, 512": keras_hub(4, 1),
    }


def head_participants(options: argparse.Namespace) -> dict[str, Run]:
    limit = ["--limit", 320, "--epochs", 2] if options.quick else []

    def run(mode: str, precision: str) -> Run:
        arguments = [mode, "--precision", precision, *limit]
        return lambda seed: run_json(sys.executable, "ours.py", [*arguments, "--seed", seed])

    return {
        f"{mode} {precision}": run(mode, f"mixed_{precision}" if precision == "bfloat16" else precision)
        for precision in ("float32", "bfloat16")
        for mode in ("head", "frozen")
    }


def spread(results: list[dict[str, Any]], name: str, key: str) -> str:
    values = [row[key] for row in results if row["participant"] == name]
    return f"{min(values):.1f} to {max(values):.1f}"


def speed_table(results: list[dict[str, Any]]) -> str:
    speed, padding = medians(results, "examples_per_second"), medians(results, "padding_share")
    measured = [own for own in OURS.values() if own in speed]
    header = ("participant", "examples/s", "lowest to highest", "padding")
    rows = []
    for name, value in speed.items():
        ratios = ("" if name in measured else f"{speed[own] / value:.2f}x" for own in measured)
        rows.append(
            [
                name,
                f"{value:.1f}",
                spread(results, name, "examples_per_second"),
                f"{padding[name]:.1%}",
                *ratios,
            ]
        )
    return markdown_table([*header, *(f"{own} is" for own in measured)], rows)


def peak_table(results: list[dict[str, Any]]) -> str:
    gflops = medians(results, "gflops_per_second")
    rows = []
    for precision, own in OURS.items():
        if own not in gflops:
            continue
        peak, reached = gflops[f"peak {precision}"], gflops[own]
        rows.append([precision, f"{peak:.0f}", f"{reached:.0f}", f"{reached / peak:.0%}"])
    return markdown_table(["precision", "peak, GFLOP/s", "training, GFLOP/s", "share of the peak"], rows)


def head_table(results: list[dict[str, Any]]) -> str:
    seconds = medians(results, "seconds")
    rows = []
    for precision in OURS:
        if f"frozen {precision}" not in seconds:
            continue
        ours, frozen = seconds[f"head {precision}"], seconds[f"frozen {precision}"]
        rows.append([precision, f"{ours:.1f}", f"{frozen:.1f}", f"{frozen / ours:.1f}x"])
    return markdown_table(["precision", "tfapp, s", "Keras fit, s", "ratio"], rows)


def print_report(about: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """Prints the tables of what was measured, which in a run that broke is not all."""
    own = next((row for row in results if row["participant"] in OURS.values()), None)
    frozen = next((row for row in results if row["participant"].startswith("frozen")), None)
    if own is None:
        sys.exit("no tables: the run broke before tfapp had its turn")
    report(
        "Full fine-tuning of MiniLM-L6 on SST-2, batch 32, lengths as they come",
        about,
        speed_table(results),
        [
            "medians over rounds; in each, every participant ran once, in turn, in its own process",
            "tfapp: a whole epoch through `train`; peers: batches of an epoch, evenly spaced by length",
        ],
    )
    report(
        "Training throughput as a share of the matrix-multiply peak of TensorFlow here, same run",
        about,
        peak_table(results),
        [
            f"counted: 6 x {own['parameters'] / 1e6:.2f} M matrix weights outside the embeddings x "
            f"{own['tokens_per_example']:.1f} real tokens an example; padding, attention scores, "
            "normalisation and the optimizer count as nothing"
        ],
    )
    if frozen is None:
        print("\nThe head phase was not measured: the run ended before it.")
        return
    report(
        f"Head phase, {frozen['epochs']} epochs in all, the first one and tokenising counted",
        about,
        head_table(results),
        ["Keras `fit`: frozen backbone, the same padded batches; both validate after each epoch"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--head-rounds", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--env-dir", type=Path, help="folder for the peers' environments; default: the cache")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it runs")
    parser.add_argument("--report", type=Path, help="print the tables of a saved run, and run nothing")
    options = parser.parse_args()
    if options.report:
        saved = json.loads(options.report.read_text())
        print_report(saved, saved["results"])
        return
    data_file("sst2", "train.csv")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    about = about_run()
    if about["load"] > 0.5:
        print(f"note: the machine is busy (load {about['load']:.1f})", file=sys.stderr)
    results: list[dict[str, Any]] = []

    def keep() -> Path:
        peers = (row["versions"] for row in results if row.get("peer") == "transformers")
        about["versions"] |= next(peers, {})
        return save(options.output, "training-speed", about, {"results": results})

    try:
        run_rounds(participants(options), 1 if options.quick else options.rounds, results, keep)
        run_rounds(head_participants(options), 1 if options.quick else options.head_rounds, results, keep)
    except PeerError as error:
        sys.exit(str(error))
    print_report(about, results)
    print(f"\nall figures: {keep()}", file=sys.stderr)


if __name__ == "__main__":
    main()
