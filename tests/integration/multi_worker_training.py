"""Trains alone or as one of several workers, as TF_CONFIG says; what came out goes to a file.

Started as ``multi_worker_training.py VOCABULARY.json learn RESULT.npz TASK...``, each task
``train:OPTIMIZER:ROWS:BATCH``, ``step:KIND:OBJECTIVE:OPTIMIZER``, or ``refused``, where the second worker
asks for another batch size; as ``... keras``, which trains by Keras alone; as ``... probed``, where
the workers measure catastrophic overfitting differently and one has a callback that stops; or as
``... kept RUN_DIR``, which trains with dropout and an adversarial objective, and prints a checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import tensorflow as tf
import two_devices
from killed_training import PHASES, train_once
from two_device_training import run

from tfapp.data.image import load_image_data
from tfapp.errors import TfappError
from tfapp.models import build_image_classifier
from tfapp.training import CatastrophicOverfitting, Phase, make_strategy, train
from tfapp.training.keras_multi_worker import scalars_averaged

INDEX = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)


def learn(strategy, vocabulary, result, *tasks):
    arrays = {}
    for task in tasks:
        kind, *parts = task.split(":")
        if kind == "refused":
            print(refused(strategy, vocabulary))  # noqa: T201
            continue
        if kind == "train":
            optimizer, rows, batch_size = parts
            weights, logits, curve = run(vocabulary, optimizer, int(rows), int(batch_size), strategy)
        else:
            with scalars_averaged(strategy):
                weights, logits, curve = *two_devices.run(*parts, strategy, predict=False), []
        for name, values in (("logits", logits), ("curve", curve), *enumerate(weights)):
            arrays[f"{task}/{name}"] = np.asarray(values)
    if INDEX == 0:
        np.savez(result, **arrays)


def refused(strategy, vocabulary):
    try:
        run(vocabulary, "sgd", 16, 4 + INDEX, strategy)
    except TfappError as error:
        return f"refused: {error}"
    return "not refused"


def by_keras(strategy, _vocabulary):
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    rows = tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1))))
    model.fit(rows, verbose=0)


class Differing(CatastrophicOverfitting):
    """Measures what it is told."""

    def __init__(self, split, figures):
        super().__init__(split)
        self.figures = iter(figures)

    def _probe(self):
        return next(self.figures)


class StopsAlone(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = INDEX == 1


def probed(strategy, _vocabulary):
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (40, 8, 8, 3), np.uint8)
    names = np.array(["lying", "standing"])[np.arange(40) % 2]
    data = load_image_data((pixels, names), validation_fraction=0.4, near_duplicates="keep", seed=1)
    healthy, ill = (0.9, 0.8), (0.95, 0.05)
    probe = Differing(data.validation, [healthy, healthy, ill if INDEX == 0 else healthy, healthy])
    with strategy.scope():
        image = keras.Input((8, 8, 3), name="pixels")
        network = keras.Model(image, keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image)))
        model = build_image_classifier(network, classes=data.classes, image_size=8)
        options = {"batch_size": 8, "verbose": False}
        history = train(model, data, phases=[Phase("all", 4, 1e-3)], callbacks=[probe], **options)
        alone = train(model, data, phases=[Phase("all", 4, 1e-3)], callbacks=[StopsAlone()], **options)
    measured = [row["val_multi_step_accuracy"] for row in history.epochs]
    digest = hashlib.sha256(b"".join(value.tobytes() for value in model.get_weights())).hexdigest()
    print(json.dumps([measured, len(probe.found), len(alone.epochs), digest]))  # noqa: T201


def kept(strategy, vocabulary, run_dir):
    folder = Path(run_dir) / f"worker-{INDEX}"
    try:
        with strategy.scope():
            print(train_once(vocabulary, folder, (PHASES[0], PHASES[-1])))  # noqa: T201
    except TfappError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(3)


if __name__ == "__main__":
    if sys.argv[2] == "kept":
        tf.config.experimental.enable_op_determinism()
    actions = {"learn": learn, "keras": by_keras, "probed": probed, "kept": kept}
    actions[sys.argv[2]](make_strategy(), json.loads(Path(sys.argv[1]).read_text()), *sys.argv[3:])
