"""Whether quantisation undoes what hardening paid for: every artifact of a hardened model under attack.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardened_exports.py image WEIGHTS [--quick]
    TFAPP_DATA=/path/to/data python scripts/benchmarks/hardened_exports.py text WEIGHTS

WEIGHTS are those that `hardening_accuracy.py` keeps. The model is exported under the default budget; when the
gate refuses, its reasons stand in the table. Adversarial examples are made on the float model and sent to
every artifact, and each TFLite file is attacked itself, as a black box.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from attack_network import EPSILON
from hardening_ours import build, load
from reporting import about_run, markdown_table, report, save

from tfapp import export
from tfapp.errors import ReleaseRefused

ATTACKS: dict[str, dict[str, Any]] = {
    "image": {"attack": "pgd", "epsilon": EPSILON, "num_steps": 20, "num_restarts": 2},
    "text": {"attack": "character_edits"},
}
VARIANTS = {"image": ("float32", "dynamic", "int8"), "text": ("float32", "dynamic")}


def manifest_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Exports and returns the manifest, of a refused release too."""
    data = load(options.kind, None)
    model = build(options.kind, data.classes, 0)
    model.load_weights(options.weights)
    if options.kind == "text":
        model.preprocessor.max_length = 128
    try:
        release = export(
            model,
            folder / "saved_models" / "hardened",
            check_with=data.test,
            data=data,
            variants=VARIANTS[options.kind],
            attack={**ATTACKS[options.kind], "examples": 16 if options.quick else 500},
            black_box_queries=50 if options.quick else options.queries,
            black_box_examples=8 if options.quick else options.box_examples,
        )
    except ReleaseRefused as refused:
        print(refused)
        return json.loads(next(folder.rglob("manifest.json")).read_text())
    return release.manifest


def table(manifest: dict[str, Any]) -> str:
    rows = []
    for row in manifest["artifacts"]:
        found = row["robustness"]
        if found is None:
            rows.append([row["variant"], *["-"] * 5, row["verdict"]])
            continue
        box = found["black_box"]
        rows.append(
            [
                row["variant"],
                f"{100 * row['accuracy']:.1f}",
                f"{100 * found['transfer_accuracy']:.1f}",
                "-" if box is None else f"{box['fooled']} of {box['examples']}",
                f"{100 * row['robust_accuracy']:.1f}",
                f"{100 * found['robust_accuracy_drop']:+.1f}",
                row["verdict"],
            ]
        )
    header = ("artifact", "accuracy, %", "under the model's examples, %", "black box fools", "robust, %")
    return markdown_table((*header, "points lost", "verdict"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--queries", type=int, default=200, help="of the black box, for each row")
    parser.add_argument("--box-examples", type=int, default=50, help="rows that the black box tries")
    parser.add_argument("--quick", action="store_true", help="few rows and queries: a check only")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    about = about_run()
    with tempfile.TemporaryDirectory() as scratch:
        manifest = manifest_of(options, Path(scratch))
    path = save(options.output, f"hardened-exports-{options.kind}", about, {"manifest": manifest})
    notes = [f"the model itself: {manifest['metrics']['robustness']}", f"all figures: {path}"]
    report(f"Artifacts of a hardened model, {options.kind}", about, table(manifest), notes)


if __name__ == "__main__":
    main()
