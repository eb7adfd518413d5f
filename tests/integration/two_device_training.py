"""Runs `train` on one and on two devices, and prints how far the results are apart, as JSON.

Started as ``two_device_training.py VOCABULARY.json TASK...``, each task ``OPTIMIZER:ROWS:BATCH:PARTS``:
two devices compute each batch in so many parts. With ``distill`` as the optimizer SGD trains a student.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
from helpers import tiny_text_classifier
from killed_training import CLASSES, split

from tfapp.data.text import TextData
from tfapp.training import Phase, distill, predict_logits, train

PHASES = {
    "sgd": (Phase("all", epochs=2, learning_rate=0.05),),
    "adamw": (Phase("head", epochs=1, learning_rate=0.02), Phase("all", epochs=1, learning_rate=0.001)),
}
SETTINGS = {"sgd": {"optimizer": "sgd"}, "adamw": {"class_weight": {CLASSES[0]: 2.0}}}


def run(vocabulary, optimizer, rows, batch_size, strategy, parts=1):
    data = TextData(split("train", rows, 1), split("validation", 9, 2), split("test", 4, 3), CLASSES, None, 5)
    with strategy.scope():
        model = tiny_text_classifier(vocabulary, CLASSES, dropout=0.0, dropout_rate=0.0)
        options = {"batch_size": batch_size, "num_microbatches": parts, "precision": "float32"}
        options |= {"keep_best": False, "verbose": False}
        if optimizer == "distill":
            given = {"unlabelled": ["a good goal", "the new bank"], "optimizer": "sgd", "epochs": 2}
            made = distill(model, data, layers=[2], learning_rate=0.05, **given, **options)
            model, history = made.student, made.history
        else:
            history = train(model, data, phases=PHASES[optimizer], **SETTINGS[optimizer], **options)
        logits = predict_logits(model, data.test.texts)
    curve = [[row["loss"], row["val_loss"], row["accuracy"]] for row in history.epochs]
    return model.get_weights(), logits, curve


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    vocabulary = json.loads(Path(sys.argv[1]).read_text())
    apart = {}
    for task in sys.argv[2:]:
        optimizer, rows, batch_size, parts = task.split(":")
        both = tf.distribute.MirroredStrategy(
            ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
        )
        one, two = (
            run(vocabulary, optimizer, int(rows), int(batch_size), strategy, count)
            for count, strategy in ((1, tf.distribute.OneDeviceStrategy("/cpu:0")), (int(parts), both))
        )
        apart[task] = {
            "weights": max(float(np.abs(a - b).max()) for a, b in zip(one[0], two[0], strict=True)),
            "logits": float(np.abs(one[1] - two[1]).max()),
            "curve": float(np.abs(np.array(one[2]) - np.array(two[2])).max()),
        }
    print(json.dumps(apart))  # noqa: T201


if __name__ == "__main__":
    main()
