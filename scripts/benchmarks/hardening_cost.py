"""What a step of each objective costs beside a plain one: same model, batch and machine, in turns.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardening_cost.py [--quick] [--output FOLDER]

Every run trains two epochs in a process of its own, and the second is timed. The ratios are those of the
medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from peers import run_json
from reporting import about_run, data_file, markdown_table, report, save
from rounds import Run, medians, run_rounds, values_of

OBJECTIVES: dict[str, dict[str, tuple[dict[str, Any], float | None]]] = {
    "text": {
        "standard": ({"objective": "standard"}, None),
        "fgm": ({"objective": "fgm"}, 1.8),
        "fgm, adversarial_weight 1": ({"objective": "fgm", "adversarial_weight": 1.0}, 1.8),
        "freelb, 3 steps": ({"objective": "freelb"}, 2.6),
        "smart": ({"objective": "smart"}, 2.2),
        "vat": ({"objective": "vat"}, None),
    },
    "image": {
        "standard": ({"objective": "standard"}, None),
        "FGSM from a random start": ({"objective": "adversarial"}, 1.5),
        "PGD, 7 steps": ({"objective": "adversarial", "num_steps": 7}, 5.0),
        "TRADES, 7 steps": ({"objective": "trades", "num_steps": 7}, 7.0),
        "MART, 7 steps": ({"objective": "mart", "num_steps": 7}, None),
        "free, 4 replays": ({"objective": "free"}, None),
    },
}
ROWS = {"text": 1280, "image": 1280}


def participants(options: argparse.Namespace) -> dict[str, Run]:
    """Maps the name of each participant to a function that runs one round of it."""
    runs: dict[str, Run] = {}
    for kind in options.kinds:
        for name, (objective, _) in OBJECTIVES[kind].items():
            arguments = [kind, "--rows", 128 if options.quick else ROWS[kind]]
            arguments += ["--precision", options.precision, "--objective", json.dumps(objective)]

            def run(_round: int, arguments: list[object] = arguments) -> dict[str, Any]:
                return run_json(sys.executable, "hardening_ours.py", arguments)

            runs[f"{kind}: {name}"] = run
    return runs


def table(results: list[dict[str, Any]]) -> str:
    seconds = medians(results, "seconds")
    steps = {row["participant"]: row["steps"] for row in results}
    rows = []
    for participant, value in seconds.items():
        kind, name = participant.split(": ", 1)
        wanted = OBJECTIVES[kind][name][1]
        per_step = [1000 * each / steps[participant] for each in values_of(results, "seconds")[participant]]
        rows.append(
            [
                kind,
                name,
                f"{1000 * value / steps[participant]:.0f}",
                f"{min(per_step):.0f} to {max(per_step):.0f}",
                f"{value / seconds[f'{kind}: standard']:.2f}x",
                "" if wanted is None else f"{wanted:g}x",
            ]
        )
    return markdown_table(("model", "objective", "ms a step", "lowest to highest", "to plain", "aim"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument(
        "--quick", action="store_true", help="few rows, one round: a check of the script only"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    data_file("sst2", "train.csv")
    about, results = about_run(), []
    rounds = 1 if options.quick else options.rounds

    def keep() -> Path:
        return save(options.output, "hardening-cost", about, {"results": results})

    run_rounds(participants(options), rounds, results, keep)
    notes = [f"{options.precision}; medians of {rounds} rounds", f"all figures: {keep()}"]
    report("Cost of a training step", about, table(results), notes)


if __name__ == "__main__":
    main()
