"""Clean accuracy of a small ResNet on CIFAR-10, and its accuracy under PGD and `standard` at 8/255.

Takes the weights that `hardening_ours.py` wrote; prints one JSON line. The rows are drawn by the seed, the
same for every model, from the test split in the order of CIFAR-10's own numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from attack_network import EPSILON
from hardening_ours import build, load

from tfapp.evaluation import evaluate_robustness
from tfapp.training import predict_logits

ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {"attack": "pgd", "num_steps": 20, "num_restarts": 2},
    "standard": {"attack": "standard"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("image",))
    parser.add_argument("weights", type=Path)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = load("image", None)
    model = build("image", data.classes, options.seed)
    model.load_weights(options.weights)
    right = predict_logits(model, data.test.features).argmax(axis=1) == data.test.labels
    answer: dict[str, Any] = {"clean": float(np.mean(right)), "test_rows": len(right), "attacks": {}}
    for name in options.attacks:
        found = evaluate_robustness(
            model,
            data.test,
            epsilon=EPSILON,
            norm="linf",
            examples=options.examples,
            seed=options.seed,
            **ATTACKS[name],
        )
        answer["attacks"][name] = {
            "clean": found.clean_accuracy,
            "attacked": found.robust_accuracy,
            "interval95": found.interval95,
            "queries": found.queries,
            "seconds": found.seconds,
            "alarms": [alarm.name for alarm in found.alarms],
        }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
