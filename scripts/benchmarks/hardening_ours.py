"""One adversarial training run, in a process of its own. Prints one JSON line.

text     MiniLM on SST-2
chinese  MiniLM, whose vocabulary is English, on ChnSentiCorp
image    a small ResNet from scratch on the CIFAR-10 subset
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from attack_network import build_network, read_images
from reporting import data_file

from tfapp import Phase, build_image_classifier, build_text_classifier, load_image_data, load_text_data, train
from tfapp.data.edits import make_synonym_edit
from tfapp.objectives import make_objective

BATCH_SIZES = {"text": 32, "chinese": 32, "image": 64}
RATES = {"text": 5e-5, "chinese": 5e-5, "image": 0.1}
FOLDERS = {"text": "sst2", "chinese": "chnsenticorp"}


class Clock(keras.callbacks.Callback):
    """Notes when the last epoch began and when its last step ended."""

    began = ended = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()


def load(kind: str, rows: int | None) -> Any:
    """Loads the data; with ``rows`` the first ones only, of CIFAR-10 in the order of its own numbers."""
    if kind in FOLDERS:
        files = {name: data_file(FOLDERS[kind], f"{name}.csv") for name in ("train", "validation", "test")}
        data = load_text_data(files["train"], validation=files["validation"], test=files["test"])
        if rows is None:
            return data
        splits = {
            name: replace(split, texts=split.texts[:rows], labels=split.labels[:rows])
            for name, split in data.splits.items()
        }
        return replace(data, **splits)
    archive = data_file("cifar10_subset.tar.gz")
    pairs = {}
    for split in ("train", "test"):
        pixels, labels = read_images(archive, split)
        pairs[split] = pixels[:rows].astype(np.uint8), [str(label) for label in labels[:rows]]
    return load_image_data(pairs["train"], test=pairs["test"], near_duplicates="keep", seed=0)


def build(kind: str, classes: tuple[str, ...], seed: int) -> Any:
    if kind in FOLDERS:
        return build_text_classifier("minilm-l6", classes=classes, seed=seed)
    keras.utils.set_random_seed(seed)
    network = build_network()
    backbone = keras.Model(network.input, network.layers[-2].input)
    return build_image_classifier(
        backbone, classes=classes, image_size=32, dropout_rate=0.0, train_batch_norm=True, seed=seed
    )


def augmentation(text: str) -> dict[str, Any]:
    """Reads what is done to training rows; the edit ``synonym:first`` is of one half of the table only."""
    settings = json.loads(text)
    if "edits" in settings:
        settings["edits"] = [
            make_synonym_edit(edit.split(":")[1]) if edit.startswith("synonym:") else edit
            for edit in settings["edits"]
        ]
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=BATCH_SIZES)
    parser.add_argument("--objective", default='{"objective": "standard"}', help="JSON: name and settings")
    parser.add_argument("--augment", help="JSON: what is done to training rows")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, help="train on this many rows only")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "auto"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="where the trained weights go")
    options = parser.parse_args()
    kind, clock = options.kind, Clock()
    data = load(kind, options.rows)
    model = build(kind, data.classes, options.seed)
    image = kind == "image"
    settings: dict[str, Any] = {"max_length": 128}
    if image:
        settings = {
            "optimizer": "sgd",
            "weight_decay": 5e-4,
            "warmup_fraction": 0.3,
            "clip_norm": None,
            "augment": {"horizontal_flip": True, "crop": 0.8},
        }
    if options.augment:
        settings["augment"] = augmentation(options.augment)
    used = resource.getrusage(resource.RUSAGE_SELF)
    history = train(
        model,
        data,
        phases=[Phase("all", options.epochs, options.learning_rate or RATES[kind])],
        batch_size=BATCH_SIZES[kind],
        objective=make_objective(**json.loads(options.objective)),
        precision=options.precision,
        keep_best=False,
        seed=options.seed,
        callbacks=[clock],
        verbose=False,
        **settings,
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    if options.weights:
        model.save_weights(options.weights)
    last = history.epochs[-1]
    answer = {
        "kind": kind,
        "objective": json.loads(options.objective),
        "seconds": clock.ended - clock.began,
        "steps": -(-len(data.train) // BATCH_SIZES[kind]),
        "cpu_minutes": (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) / 60,
        "val_accuracy": last["val_accuracy"],
        "loss": last["loss"],
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
