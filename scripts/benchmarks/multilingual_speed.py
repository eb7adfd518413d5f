"""Training speed of the multilingual encoder beside transformers + PyTorch: the same weights and texts.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/multilingual_speed.py [--quick] [--rounds 3]

Full fine-tuning of multilingual-e5-small (all 250,002 pieces) on ChnSentiCorp, batch 32, up to 128 tokens,
bfloat16 on both sides. The peer reads the weights that tfapp has made of the packaged ones, and the package's
own `tokenizer.json`. Each participant runs in a process of its own, once a round, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report, save
from rounds import Run, medians, run_rounds

from tfapp.assets import ASSETS, fetch
from tfapp.models.built_presets import build_preset

BACKBONE = "e5-small-multilingual"
OURS = "tfapp bfloat16"


def peer_folder(folder: Path) -> Path:
    """Makes the folder that transformers reads: our weights, and the tokenizer as it was published."""
    preset = build_preset(BACKBONE).folder
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(preset / name)
    (folder / "tokenizer.json").symlink_to(fetch(ASSETS["e5-small-tokenizer"]) / "tokenizer.json")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def participants(options: argparse.Namespace, model: Path) -> dict[str, Run]:
    python = peer_python("transformers", env_dir=options.env_dir)
    steps = (3, 1) if options.quick else (options.steps, 6)

    def ours(seed: int) -> dict[str, Any]:
        arguments = ["speed", "--backbone", BACKBONE, "--data-set", "chnsenticorp", "--seed", seed]
        arguments += ["--precision", "mixed_bfloat16", *(("--limit", 320) if options.quick else ())]
        return run_json(sys.executable, "ours.py", arguments)

    def transformers(*more: object) -> Run:
        fixed = ["--mode", "speed", "--model", model, "--train", data_file("chnsenticorp", "train.csv")]
        fixed += ["--threads", options.cores, "--steps", steps[0], "--warmup-steps", steps[1]]
        fixed += ["--precision", "bfloat16", *more]
        return lambda seed: run_json(python, "peer_transformers.py", [*fixed, "--seed", seed])

    return {
        OURS: ours,
        "transformers bfloat16": transformers(),
        "transformers bfloat16, group_by_length": transformers("--group-by-length"),
    }


def table(results: list[dict[str, Any]]) -> str:
    speed, padding = medians(results, "examples_per_second"), medians(results, "padding_share")
    rows = [
        [
            name,
            f"{value:.1f}",
            f"{padding[name]:.1%}",
            "" if name == OURS else f"{speed[OURS] / value:.2f}x",
        ]
        for name, value in speed.items()
    ]
    return markdown_table(["participant", "examples/s", "padding", "tfapp is"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of the peer, evenly spaced over an epoch")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--env-dir", type=Path, help="folder for the peers' environments; default: the cache")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    parser.add_argument("--quick", action="store_true", help="a few steps of each, to see that it runs")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    about = about_run()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:

        def keep() -> Path:
            return save(options.output, "multilingual-speed", about, {"results": results})

        try:
            runs = participants(options, peer_folder(Path(folder)))
            run_rounds(runs, 1 if options.quick else options.rounds, results, keep)
        except PeerError as error:
            sys.exit(str(error))
    about["versions"] |= next((row["versions"] for row in results if row.get("peer")), {})
    notes = [
        "medians over rounds; in each, every participant ran once, in turn, in its own process",
        "tfapp: a whole epoch through `train`; peers: batches of an epoch, evenly spaced by length",
    ]
    title = "Full fine-tuning of multilingual-e5-small on ChnSentiCorp, batch 32"
    report(title, about, table(results), notes)


if __name__ == "__main__":
    main()
