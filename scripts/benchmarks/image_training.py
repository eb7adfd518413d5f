"""Training speed on images beside plain Keras and PyTorch, in one run: prints markdown tables with ratios.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/image_training.py [--quick] [--rounds 3]

Every participant runs in a process of its own, once a round, in turn, so that what else the machine does
hits all alike. Each is warmed up by steps that are not counted. The figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report, save
from rounds import Run, medians, run_rounds, values_of

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def participants(options: argparse.Namespace) -> dict[str, Run]:
    """Maps the name of each participant in whole-network training to a function that runs one round."""
    python = peer_python("transformers", env_dir=options.env_dir)
    shape = ["--image-size", options.image_size, "--batch-size", options.batch_size, "--steps", options.steps]

    def ours(mode: str, precision: str, *more: object) -> Run:
        fixed = [mode, "--precision", PRECISIONS[precision], *shape, *more]
        return lambda seed: run_json(sys.executable, "image_ours.py", [*fixed, "--seed", seed])

    def torch(precision: str) -> Run:
        fixed = ["--precision", precision, *shape, "--threads", options.cores]
        return lambda seed: run_json(python, "peer_torch_resnet.py", [*fixed, "--seed", seed])

    runs: dict[str, Run] = {}
    for precision in PRECISIONS:
        runs |= {
            f"tfapp {precision}": ours("speed", precision),
            f"Keras fit {precision}": ours("keras", precision),
            f"Keras fit, frozen norm, {precision}": ours("keras", precision, "--freeze-norm"),
            f"torch {precision}": torch(precision),
        }
    return runs


def head_participants(options: argparse.Namespace) -> dict[str, Run]:
    """The same for the head phase."""

    def run(mode: str, precision: str) -> Run:
        fixed = [mode, "--precision", PRECISIONS[precision], "--epochs", options.epochs]
        fixed += ["--image-size", options.image_size, "--batch-size", options.batch_size]
        return lambda seed: run_json(sys.executable, "image_ours.py", [*fixed, "--seed", seed])

    return {
        f"{mode} {precision}": run(mode, precision) for precision in PRECISIONS for mode in ("head", "frozen")
    }


def speed_table(results: list[dict[str, Any]]) -> str:
    speeds = values_of(results, "images_per_second")
    rows = []
    for name, values in speeds.items():
        own = statistics.median(speeds[f"tfapp {name.split()[-1]}"])
        value = statistics.median(values)
        ratio = "" if name.startswith("tfapp") else f"{own / value:.2f}x"
        rows.append([name, f"{value:.2f}", f"{min(values):.2f} to {max(values):.2f}", ratio])
    return markdown_table(["participant", "images/s", "lowest to highest", "tfapp, same precision, is"], rows)


def head_table(results: list[dict[str, Any]]) -> str:
    seconds = medians(results, "seconds")
    accuracy = {name: statistics.mean(values) for name, values in values_of(results, "accuracy").items()}
    rows = []
    for precision in PRECISIONS:
        ours, frozen = f"head {precision}", f"frozen {precision}"
        if frozen in accuracy:
            rows.append(
                [
                    precision,
                    f"{seconds[ours]:.1f}",
                    f"{seconds[frozen]:.1f}",
                    f"{seconds[frozen] / seconds[ours]:.2f}x",
                    f"{accuracy[ours]:.4f}",
                    f"{accuracy[frozen]:.4f}",
                ]
            )
    header = [
        "precision",
        "tfapp, s",
        "Keras fit, s",
        "ratio",
        "tfapp, test accuracy",
        "Keras, test accuracy",
    ]
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--head-rounds", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="counted, of whole-network training")
    parser.add_argument("--epochs", type=int, default=10, help="of the head phase")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--env-dir", type=Path, help="folder for the peers' environments; default: the cache")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.head_rounds = options.steps = options.epochs = 1
    data_file("magnetic_tile.tar.gz")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    about = about_run()
    if about["load"] > 0.5:
        print(f"note: the machine is busy (load {about['load']:.1f})", file=sys.stderr)
    results: list[dict[str, Any]] = []

    def keep() -> Path:
        peers = (row["versions"] for row in results if row.get("peer") == "torch")
        about["versions"] |= next(peers, {})
        return save(options.output, "image-training", about, {"results": results})

    try:
        run_rounds(participants(options), options.rounds, results, keep)
        run_rounds(head_participants(options), options.head_rounds, results, keep)
    except PeerError as error:
        sys.exit(str(error))
    size, batch = options.image_size, options.batch_size
    report(
        f"Whole-network training of ResNet50, {size} x {size} pixels, batch {batch}",
        about,
        speed_table([row for row in results if "images_per_second" in row]),
        [
            "medians over rounds; in each, every participant ran once, in turn, in its own process",
            "tfapp decodes its images in every step, the others have them as arrays in memory",
        ],
    )
    report(
        f"Head phase on MobileNetV2 and the magnetic tiles, {options.epochs} epochs, start-up counted",
        about,
        head_table([row for row in results if "accuracy" in row]),
        [
            "tfapp: 2 cached augmented views; Keras `fit`: frozen backbone, flips in every epoch's pipeline",
            "the same optimizer, schedule, clipping and epochs; tfapp measures validation rows, too",
        ],
    )
    print(f"\nall figures: {keep()}", file=sys.stderr)


if __name__ == "__main__":
    main()
