"""Trains alone or as one of several workers, as TF_CONFIG says; what came out goes to a file.

Started as ``multi_worker_training.py VOCABULARY.json learn RESULT.npz TASK...``, each task
``train:OPTIMIZER:ROWS:BATCH`` or ``step:KIND:OBJECTIVE:OPTIMIZER``; as ``... refused``, where the second
worker asks for another batch size; as ``... keras``, which trains by Keras alone; or as ``... kept RUN_DIR``,
which trains with dropout and an adversarial objective, and prints a checksum.
"""

from __future__ import annotations

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

from tfapp.errors import TfappError
from tfapp.training import make_strategy
from tfapp.training.keras_multi_worker import scalars_averaged

INDEX = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)


def learn(strategy, vocabulary, result, *tasks):
    arrays = {}
    for task in tasks:
        kind, *parts = task.split(":")
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
        sys.exit(f"refused: {error}")


def by_keras(strategy, _vocabulary):
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    rows = tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1))))
    model.fit(rows, verbose=0)


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
    actions = {"learn": learn, "refused": refused, "keras": by_keras, "kept": kept}
    actions[sys.argv[2]](make_strategy(), json.loads(Path(sys.argv[1]).read_text()), *sys.argv[3:])
