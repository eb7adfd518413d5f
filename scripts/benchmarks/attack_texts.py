"""Clean accuracy of a text classifier, and its accuracy under the word and the character attack.

Takes the weights that `hardening_ours.py` wrote; prints one JSON line. The rows are drawn from the test split
by the seed, the same for every model. ``held-out`` is the word attack with the half of the substitution table
that training on the other half has not seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from hardening_accuracy import CHINESE_EDITS
from hardening_ours import build, load

from tfapp.data.lexicon import load_substitutions
from tfapp.evaluation import evaluate_robustness
from tfapp.training import predict_logits

ATTACKS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "text": {
        "word": ("word_substitution", {}),
        "held-out": ("word_substitution", {"half": "second"}),
        "character": ("character_edits", {}),
    },
    "chinese": {"character": ("character_edits", {"edits": CHINESE_EDITS})},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--attacks", nargs="+", help="some of the attacks only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = load(options.kind, None)
    model = build(options.kind, data.classes, options.seed)
    model.load_weights(options.weights)
    model.preprocessor.max_length = 128
    right = predict_logits(model, data.test.texts).argmax(axis=1) == data.test.labels
    answer: dict[str, Any] = {"clean": float(np.mean(right)), "test_rows": len(right), "attacks": {}}
    for name in options.attacks or ATTACKS[options.kind]:
        attack, settings = ATTACKS[options.kind][name]
        given = dict(settings)
        if "half" in given:
            given["candidates"] = load_substitutions(half=given.pop("half"))
        found = evaluate_robustness(
            model, data.test, attack=attack, options=given, examples=options.examples, seed=options.seed
        )
        answer["attacks"][name] = {
            "clean": found.clean_accuracy,
            "attacked": found.robust_accuracy,
            "interval95": found.interval95,
            "queries": found.queries,
            "seconds": found.seconds,
        }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
