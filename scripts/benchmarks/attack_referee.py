"""A referee for `standard`: torchattacks' attacks in AutoAttack's settings, on a PyTorch copy of one network.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/attack_referee.py [--quick] [--weights FILE]

Trains a small ResNet on CIFAR-10's subset against FGSM from random starts (an undefended one falls whole to
every attack and shows nothing), or takes the weights of an earlier run; then each side attacks the first test
images, in the order of their numbers in CIFAR-10, with each attack alone and with all in turn on the images
that still stand. Each side runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report, save

ATTACKS = ("apgd", "apgd_t", "fab", "square")
TITLES = {"apgd": "APGD-CE", "apgd_t": "APGD-T", "fab": "FAB-T", "square": "Square"}


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fills a folder with weights, images, labels and logits; tells about the network."""
    import keras
    import numpy as np
    from attack_network import (
        build_network,
        copy_weights,
        load_weights,
        read_images,
        save_weights,
        train_network,
    )
    from hardening_ours import build

    archive = data_file("cifar10_subset.tar.gz")
    keras.utils.set_random_seed(options.seed)
    model = build_network()
    if options.weights and options.weights.suffix == ".h5":
        hardened = build("image", tuple(map(str, range(10))), options.seed)
        hardened.load_weights(options.weights)
        copy_weights(hardened, model)
    elif options.weights:
        load_weights(model, options.weights)
    else:
        images, labels = read_images(archive, "train")
        rows = 640 if options.quick else len(images)
        train_network(model, images[:rows], labels[:rows], epochs=options.epochs, seed=options.seed)
        options.output.mkdir(parents=True, exist_ok=True)
        save_weights(model, options.output / "attack-referee-weights.npz")
    save_weights(model, folder / "weights.npz")
    images, labels = (values[: options.examples] for values in read_images(archive, "test"))
    logits = model(images[:100], training=False)
    np.savez(folder / "images.npz", images=images, labels=labels, logits=logits)
    return {"parameters": model.count_params(), "classes": np.bincount(labels, minlength=10).tolist()}


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lets both sides attack."""
    shared = [folder, "--num-steps", options.num_steps, "--num-queries", options.num_queries]
    shared += ["--batch-size", options.batch_size, "--threads", options.cores, "--seed", options.seed]
    peer = peer_python("torchattacks", env_dir=options.env_dir)
    return [
        run_json(sys.executable, "attack_ours.py", shared),
        run_json(peer, "peer_torchattacks.py", shared),
    ]


def table(ours: dict[str, Any], peer: dict[str, Any], kind: str) -> str:
    """One row an attack: robust accuracy and seconds of both, and what lies between them."""
    rows = []
    for name in ATTACKS:
        own, other = ours[kind][name], peer[kind][name]
        rows.append(
            [
                TITLES[name],
                f"{100 * own['accuracy']:.1f}",
                f"{100 * other['accuracy']:.1f}",
                f"{100 * (own['accuracy'] - other['accuracy']):+.1f}",
                f"{own['seconds']:.1f}",
                f"{other['seconds']:.1f}",
                f"{other['seconds'] / own['seconds']:.2f}x",
            ]
        )
    if kind == "after":
        seconds = [sum(row["seconds"] for row in side[kind].values()) for side in (ours, peer)]
        final = rows[-1][1:4]
        ratio = f"{seconds[1] / seconds[0]:.2f}x"
        rows.append(["all four", *final, f"{seconds[0]:.1f}", f"{seconds[1]:.1f}", ratio])
    header = ["robust accuracy, %", "tfapp", "torchattacks", "tfapp is weaker by, points"]
    return markdown_table([*header, "tfapp, s", "torchattacks, s", "tfapp is faster"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, steps and queries, to see it run")
    parser.add_argument("--examples", type=int, default=500, help="test images")
    parser.add_argument("--epochs", type=int, default=12, help="of training")
    parser.add_argument(
        "--weights",
        type=Path,
        help="an earlier run's .npz, or hardening_accuracy's .weights.h5; else it trains",
    )
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--num-queries", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-dir", type=Path, help="folder for the peers' environments; default: the cache")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    options = parser.parse_args()
    if options.quick:
        options.examples, options.epochs, options.num_steps, options.num_queries = 40, 1, 10, 50
    data_file("cifar10_subset.tar.gz")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    about = about_run()
    if about["load"] > 0.5:
        print(f"note: the machine is busy (load {about['load']:.1f})", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory() as folder:
            network = prepare(Path(folder), options)
            ours, peer = measure(Path(folder), options)
    except PeerError as error:
        sys.exit(str(error))
    for side in (ours, peer):
        if side["logits_difference"] > 1e-4:
            sys.exit(f"{side['who']}: logits differ by {side['logits_difference']:.2g}: not the same network")
    about["versions"] |= peer["versions"]
    save(options.output, "attack-referee", about, {"network": network, "ours": ours, "peer": peer})
    settings = (
        f"linf, 8/255, APGD and FAB {options.num_steps} steps, 9 targets, Square {options.num_queries} "
        f"queries, the first {options.examples} test images by their number in CIFAR-10, seed {options.seed}"
    )
    notes = [
        f"clean accuracy {100 * ours['clean']:.1f} % (tfapp) and {100 * peer['clean']:.1f} % (torchattacks); "
        f"logits differ by {peer['logits_difference']:.1e} at most; {network['parameters']:,} parameters",
        f"{options.cores} threads, batches of {options.batch_size}",
    ]
    report(
        f"Each attack alone, on the images that are classified rightly: {settings}",
        about,
        table(ours, peer, "alone"),
        [*notes, "tracing and warming up counted"],
    )
    report(
        f"All in turn, each on the images that still stand: {settings}",
        about,
        table(ours, peer, "after"),
        [*notes, "after the attacks of the first table, in the same process: tracing is not counted"],
    )


if __name__ == "__main__":
    main()
