"""What hardening buys and costs: clean and attacked accuracy of plain and hardened models over seeds.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardening_accuracy.py text [--quick] [--seeds 3]
    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardening_accuracy.py chinese
    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardening_accuracy.py image

Texts: MiniLM on SST-2, attacked by words and characters on 500 rows of the test split; and on 3,000 rows of
ChnSentiCorp, attacked by Chinese edits on 200. Images: a small ResNet from scratch on the CIFAR-10 subset, as
many epochs as take about 20 minutes of one core, attacked by PGD (20 steps, 2 restarts) and `standard` at
8/255 on 500 test images. Finished runs are kept in the output folder, and an interrupted benchmark goes on
with those that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from peers import run_json
from reporting import about_run, data_file, markdown_table, report, save

QUICK = {"epochs": 1, "rows": 128, "examples": 8}
EDITS = ["swap", "drop", "insert", "keyboard", "homoglyph"]
CHINESE_EDITS = ["zh_homophone", "zh_lookalike", "zh_script", "zh_swap", "zh_symbol", "zh_width"]
METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "text": {
        "standard": {"objective": {"objective": "standard"}, "epochs": 3},
        "fgm": {"objective": {"objective": "fgm"}, "epochs": 3},
        "fgm, edits": {"objective": {"objective": "fgm"}, "epochs": 3, "augment": {"edits": EDITS}},
        "word_augmented, edits": {
            "objective": {"objective": "word_augmented"},
            "epochs": 3,
            "augment": {"edits": EDITS},
        },
        "word_augmented, edits and half of the synonyms": {
            "objective": {"objective": "word_augmented"},
            "epochs": 3,
            "augment": {"edits": [*EDITS, "synonym:first"]},
        },
    },
    "chinese": {
        "standard": {"objective": {"objective": "standard"}, "epochs": 3, "rows": 3000, "examples": 200},
        "word_augmented, edits": {
            "objective": {"objective": "word_augmented"},
            "epochs": 3,
            "rows": 3000,
            "examples": 200,
            "augment": {"edits": CHINESE_EDITS},
        },
    },
    "image": {
        "standard": {"objective": {"objective": "standard"}, "epochs": 40},
        "FGSM from a random start": {"objective": {"objective": "adversarial"}, "epochs": 26},
        "TRADES, 7 steps": {"objective": {"objective": "trades"}, "epochs": 12},
    },
}


def run(kind: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and attacks one model, unless that is done already."""
    recipe = METHODS[kind][name] | (QUICK if options.quick else {})
    settings = json.dumps([recipe, options.precision], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    stem = f"{kind}-{name.replace(', ', '-').replace(' ', '-')}-{digest}-{seed}"
    kept = options.output / "hardening" / f"{stem}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    kept.parent.mkdir(parents=True, exist_ok=True)
    weights = kept.with_suffix(".weights.h5")
    arguments = [kind, "--objective", json.dumps(recipe["objective"]), "--seed", seed, "--weights", weights]
    arguments += ["--epochs", recipe["epochs"], "--precision", options.precision]
    arguments += ["--augment", json.dumps(recipe["augment"])] if "augment" in recipe else []
    arguments += ["--rows", recipe["rows"]] if "rows" in recipe else []
    trained = run_json(sys.executable, "hardening_ours.py", arguments)
    script = "attack_images.py" if kind == "image" else "attack_texts.py"
    attacked = run_json(sys.executable, script, [kind, weights, "--examples", recipe.get("examples", 500)])
    answer = {"method": name, "seed": seed, "recipe": recipe, "trained": trained, **attacked}
    kept.write_text(json.dumps(answer, indent=1) + "\n")
    print(f"{stem}: clean {attacked['clean']:.3f}", file=sys.stderr, flush=True)
    return answer


def spread(values: list[float], scale: float = 100.0) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{scale * mean:.1f}"
    return f"{scale * mean:.1f} ± {scale * statistics.stdev(values):.1f}"


def table(results: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(row["method"] for row in results))
    attacks = list(results[0]["attacks"])
    rows = []
    for name in names:
        own = [row for row in results if row["method"] == name]
        rows.append(
            [
                name,
                str(len(own)),
                spread([row["trained"]["cpu_minutes"] for row in own], 1.0),
                spread([row["clean"] for row in own]),
                *(spread([row["attacks"][attack]["attacked"] for row in own]) for attack in attacks),
            ]
        )
    header = ("training", "seeds", "CPU minutes", "clean, %", *(f"{attack}, %" for attack in attacks))
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=METHODS)
    parser.add_argument("--methods", nargs="+", help="some of them only")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow it")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "auto"), default="auto")
    parser.add_argument("--quick", action="store_true", help="few rows, one epoch and seed: a check only")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    data_file("sst2", "train.csv")
    about, results = about_run(), []
    for seed in range(options.first_seed, options.first_seed + (1 if options.quick else options.seeds)):
        for name in options.methods or METHODS[options.kind]:
            results.append(run(options.kind, name, seed, options))
    path = save(options.output, f"hardening-{options.kind}", about, {"results": results})
    notes = [f"mean and standard deviation over seeds; {options.precision}", f"all figures: {path}"]
    report(f"Hardening, {options.kind}", about, table(results), notes)


if __name__ == "__main__":
    main()
