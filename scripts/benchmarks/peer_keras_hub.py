"""Fine-tune with plain `keras_hub.models.BertTextClassifier.fit` as it comes: strings in, its own Adam.

Runs in tfapp's environment but imports nothing of tfapp. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pandas as pd


class Clock(keras.callbacks.Callback):
    """Notes the time after each step."""

    def __init__(self):
        super().__init__()
        self.ticks: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.ticks.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the pretrained model")
    parser.add_argument("--train", type=Path, required=True, help="CSV with the columns text and label")
    parser.add_argument("--sequence-length", type=int, help="default: what the preprocessor comes with (512)")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warmup-steps", type=int, default=2, help="not counted")
    parser.add_argument("--steps", type=int, default=8, help="counted")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    frame = pd.read_csv(options.train, dtype=str, keep_default_na=False)
    rows = np.random.default_rng(options.seed).permutation(len(frame))
    rows = rows[: (options.warmup_steps + options.steps) * options.batch_size]
    classes = sorted(frame["label"].unique())
    texts = frame["text"].to_numpy(str)[rows]
    labels = np.array([classes.index(name) for name in frame["label"].iloc[rows]])

    classifier = keras_hub.models.BertTextClassifier.from_preset(
        options.model, num_classes=len(classes), dtype=options.precision
    )
    if options.sequence_length:
        classifier.preprocessor.sequence_length = options.sequence_length
    clock = Clock()
    classifier.fit(texts, labels, batch_size=options.batch_size, epochs=1, callbacks=[clock], verbose=0)
    seconds = clock.ticks[-1] - clock.ticks[options.warmup_steps - 1]
    filled = keras.ops.convert_to_numpy(classifier.preprocessor(texts[:256].tolist())["padding_mask"])
    about = {
        "peer": "keras_hub",
        "sequence_length": classifier.preprocessor.sequence_length,
        "precision": options.precision,
        "examples_per_second": options.steps * options.batch_size / seconds,
        "padding_share": 1 - float(filled.mean()),
        "seconds": seconds,
        "steps": options.steps,
        "versions": {"keras": keras.__version__, "keras_hub": keras_hub.__version__},
    }
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    main()
