"""tfapp's attacks of `standard` on the referee's network and images; prints one JSON line.

Takes a folder that `attack_referee.py` filled.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from attack_network import EPSILON, build_network, load_weights

from tfapp.attacks import CompiledModel, standard_attacks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--num-queries", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", nargs="+", default=["apgd", "apgd_t", "fab", "square"])
    options = parser.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    model = build_network()
    load_weights(model, options.folder / "weights.npz")
    with np.load(options.folder / "images.npz") as arrays:
        images, labels, expected = arrays["images"], arrays["labels"], arrays["logits"]
    model_fn = CompiledModel(lambda inputs: model(inputs, training=False))
    difference = float(np.abs(model_fn(images[: len(expected)]) - expected).max())

    def standing(adversarial: Any) -> np.ndarray:
        return np.argmax(model_fn(adversarial), axis=1) == labels

    ensemble = standard_attacks("linf", 10, num_steps=options.num_steps, num_queries=options.num_queries)
    attacks = [(name, attack) for name, attack in ensemble if name in options.attacks]
    given = {"epsilon": EPSILON, "seed": options.seed, "batch_size": options.batch_size}
    clean = standing(images)
    alone, after, still = {}, {}, clean
    for name, attack in attacks:
        began = time.perf_counter()
        found = attack(model_fn, images, labels, **given)
        alone[name] = {"accuracy": float(standing(found).mean()), "seconds": time.perf_counter() - began}
    for name, attack in attacks:
        began = time.perf_counter()
        rows = np.flatnonzero(still)
        found = images.copy()
        found[rows] = attack(model_fn, images[rows], labels[rows], **given)
        still = still & standing(found)
        after[name] = {"accuracy": float(still.mean()), "seconds": time.perf_counter() - began}
    answer = {
        "who": "tfapp",
        "clean": float(clean.mean()),
        "alone": alone,
        "after": after,
        "logits_difference": difference,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
