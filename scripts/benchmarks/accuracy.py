"""Test accuracy of tfapp and of transformers + PyTorch at one recipe over seeds, with the mean difference.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/accuracy.py [--quick] [--log FILE.jsonl]

Every finished run is a line of the log. A second call skips the runs that the log holds at the same settings
(recipe, precision, grouping, rows), so a broken run goes on; its table holds lines of these settings alone.
The interval is Welch's t: a seed orders rows and draws weights differently in the two libraries, so their
runs do not pair.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report
from scipy import stats

from tfapp.assets import ASSETS, fetch

PHASES: dict[str, dict[str, Any]] = {
    "sst2": {"train": "all", "epochs": 3, "learning_rate": 5e-5},
    "banking77": {"train": "all", "epochs": 4, "learning_rate": 1e-4},
}
"""The shared recipe: batch 32, AdamW 0.01, 10 % warm-up, linear decay, clip norm 1, 128 tokens at most."""

BEST: dict[str, dict[str, Any]] = {
    "sst2": {
        "phases": [{"train": "all", "epochs": 3, "learning_rate": 1e-4}],
        "train": {"keep_best": False},
    },
}
"""Recipes of tfapp alone that do better, by data set: arguments for `model` and `train`, and `phases`."""


QUICK_ROWS = 256


def recipes(data_set: str) -> dict[str, dict[str, Any]]:
    same = {"phases": [PHASES[data_set]], "train": {"keep_best": False}}
    return {"tfapp": same} | ({"tfapp best recipe": BEST[data_set]} if data_set in BEST else {})


def settings_of(who: str, data_set: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the accuracy of a run depends on, but for its seed."""
    chosen = {"who": who, "data_set": data_set, "limit": QUICK_ROWS if options.quick else None}
    if who == "transformers":
        peer = {"precision": options.peer_precision, "group_by_length": options.peer_group_by_length}
        return chosen | peer | {"recipe": {"phases": [PHASES[data_set]]}}
    return chosen | {"precision": options.precision, "recipe": recipes(data_set)[who]}


def has_settings(row: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a line of the log tells of a run at these settings.

    Logs of earlier versions give `recipe` by name or not at all, and no `limit`: their recipe is the shared
    one, and the number of rows tells a quick run.
    """
    earlier = {"recipe": settings["recipe"], "limit": QUICK_ROWS if row["rows"] == QUICK_ROWS else None}
    told = row if isinstance(row.get("recipe"), dict) else row | earlier
    return all(told.get(name) == value for name, value in settings.items())


def run_one(who: str, data_set: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    limit = ["--limit", QUICK_ROWS] if options.quick else []
    if who != "transformers":
        arguments = ["accuracy", "--data-set", data_set, "--seed", seed, "--precision", options.precision]
        recipe = json.dumps(recipes(data_set)[who])
        return run_json(sys.executable, "ours.py", [*arguments, "--recipe", recipe, *limit])
    phase = PHASES[data_set]
    arguments = ["--mode", "train", "--model", fetch(ASSETS["minilm-l6"]), "--seed", seed]
    arguments += ["--train", data_file(data_set, "train.csv"), "--test", data_file(data_set, "test.csv")]
    arguments += ["--threads", options.threads]
    arguments += ["--epochs", phase["epochs"], "--learning-rate", phase["learning_rate"]]
    arguments += ["--precision", options.peer_precision]
    arguments += ["--group-by-length"] if options.peer_group_by_length else []
    python = peer_python("transformers", env_dir=options.env_dir)
    return run_json(python, "peer_transformers.py", [*arguments, *limit])


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def difference(ours: np.ndarray, peers: np.ndarray) -> tuple[float, float, float]:
    """Mean difference and its 95 % interval, Welch's t."""
    shares = np.array([ours.var(ddof=1) / len(ours), peers.var(ddof=1) / len(peers)])
    mean = float(ours.mean() - peers.mean())
    if not shares.any():
        return mean, mean, mean
    freedom = shares.sum() ** 2 / (shares[0] ** 2 / (len(ours) - 1) + shares[1] ** 2 / (len(peers) - 1))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(shares.sum()))
    return mean, mean - half, mean + half


def accuracy_table(log: list[dict[str, Any]]) -> str:
    header = ["data set", "who", "test accuracy by seed", "mean", "points above transformers (95 %)"]
    lines = []
    for data_set in PHASES:
        rows = sorted((row for row in log if row["data_set"] == data_set), key=lambda row: row["seed"])
        scores = {
            who: np.array([row["accuracy"] for row in rows if row["who"] == who])
            for who in dict.fromkeys(row["who"] for row in rows)
        }
        peers = scores.get("transformers", np.array([]))
        for who, values in scores.items():
            compared = ""
            if who != "transformers" and min(len(values), len(peers)) > 1:
                compared = "{:+.2f} ({:+.2f} to {:+.2f})".format(
                    *(100 * x for x in difference(values, peers))
                )
            by_seed = ", ".join(f"{value:.4f}" for value in values)
            lines.append([data_set, who, by_seed, f"{values.mean():.4f}", compared])
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    parser.add_argument("--data-sets", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--who", nargs="+", choices=("tfapp", "tfapp best recipe", "transformers"))
    parser.add_argument("--precision", choices=("auto", "float32", "mixed_bfloat16"), default="auto")
    parser.add_argument("--peer-precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--peer-group-by-length", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=2, help="of the peer")
    parser.add_argument("--env-dir", type=Path, help="folder for the peers' environments; default: the cache")
    parser.add_argument("--log", type=Path, default=Path("accuracy.jsonl"))
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROWS} rows and 2 seeds, to see that it runs"
    )
    options = parser.parse_args()
    for data_set in options.data_sets:
        data_file(data_set, "test.csv")
    about = about_run()
    settings = {
        (data_set, who): settings_of(who, data_set, options)
        for data_set in options.data_sets
        for who in ("transformers", *recipes(data_set))
    }
    for seed in range(2 if options.quick else options.seeds):
        for (data_set, who), wanted in settings.items():
            done = any(row["seed"] == seed and has_settings(row, wanted) for row in read_log(options.log))
            if done or (options.who and who not in options.who):
                continue
            try:
                answer = run_one(who, data_set, seed, options)
            except PeerError as error:
                sys.exit(str(error))
            with options.log.open("a") as file:
                file.write(json.dumps(wanted | {"seed": seed} | answer) + "\n")
            print(f"{data_set} seed {seed} {who}: {answer['accuracy']:.4f}", file=sys.stderr, flush=True)
    log = [row for row in read_log(options.log) if any(has_settings(row, it) for it in settings.values())]
    about["versions"] |= next((row["versions"] for row in log if row["who"] == "transformers"), {})
    shared = "; ".join(
        f"{name} {it['epochs']} epochs at {it['learning_rate']:g}" for name, it in PHASES.items()
    )
    grouping = "batches grouped by length" if options.peer_group_by_length else "random batches"
    notes = [
        f"recipe: {shared}; batch 32, AdamW 0.01, 10 % warm-up, linear decay, clip norm 1, 128 tokens",
        f"tfapp in {options.precision} precision; transformers in {options.peer_precision}, {grouping}",
        "tfapp takes the mean over tokens, as MiniLM was trained; transformers BERT's pooler",
        *(f"best recipe for {name}: {json.dumps(it)}" for name, it in BEST.items()),
        "intervals: Welch's t over seeds",
    ]
    report("Test accuracy at one recipe", about, accuracy_table(log), notes)


if __name__ == "__main__":
    main()
