"""Test accuracy on the magnetic tiles: from scratch, frozen, fine-tuned, and jointly with the solar cells.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/image_accuracy.py [--quick] [--seeds 3]

One transfer ledger a backbone, over all seeds; an interrupted run goes on where it stood. Photographs of the
training folder that nearly equal one of the test folder are left out, as `load_image_data` does by default;
`--near-duplicates keep` leaves them in.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting import about_run, data_file, report, save

from tfapp import Phase, SourceTask, build_image_classifier, load_image_data, transfer_ledger
from tfapp.evaluation.ledger import WAYS

PHASES = {
    "mobilenet-v2": [Phase("head", 10, 5e-3), Phase("all", 12, 3e-4)],
    "resnet50-nsfw": [Phase("head", 10, 5e-3), Phase("all", 8, 1e-4)],
}
SIZES = {"mobilenet-v2": 288, "resnet50-nsfw": 224}
AUGMENT = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "brightness": 0.2,
    "contrast": 0.3,
    "mixup": 0.2,
}


def measure(options: argparse.Namespace, backbone: str) -> Any:
    """Runs the ledger of one backbone."""
    tiles = load_image_data(
        data_file("magnetic_tile.tar.gz"),
        validation_fraction=0.15,
        near_duplicates=options.near_duplicates,
        seed=7,
    )
    cells = load_image_data("elpv", seed=7)

    def build(weights: Any, seed: int) -> Any:
        return build_image_classifier(
            backbone,
            classes=tiles.classes,
            image_size=options.image_size or SIZES[backbone],
            weights=weights,
            train_batch_norm=weights is None,
            seed=seed,
        )

    return transfer_ledger(
        build,
        tiles,
        source=SourceTask(cells, alpha=options.alpha, source_share=0.25),
        phases=[replace(phase, epochs=1) if options.quick else phase for phase in PHASES[backbone]],
        seeds=range(1 if options.quick else options.seeds),
        ways=options.ways,
        run_dir=None if options.quick else options.output / f"{backbone}-{options.near_duplicates}",
        sampling="balanced",
        augment=AUGMENT,
        keep_best=False,
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=0.3, help="weight of the solar cells' loss")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of training")
    parser.add_argument("--image-size", type=int, help=f"default: {SIZES}")
    parser.add_argument("--quick", action="store_true", help="one seed, an epoch a phase: a check only")
    parser.add_argument("--near-duplicates", choices=("group", "keep"), default="group")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    options = parser.parse_args()
    about = about_run()
    ledgers = {}
    for backbone in options.backbones:
        ledger = measure(options, backbone)
        seeds = len(ledger.seeds)
        report(f"Magnetic tiles, {backbone}, seeds: {seeds}", about, ledger.table(), ledger.lines())
        ledgers[backbone] = ledger.to_dict()
        name = "image-accuracy-quick" if options.quick else "image-accuracy"
        save(options.output, name, about, {"ledgers": ledgers})


if __name__ == "__main__":
    main()
