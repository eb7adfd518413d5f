"""Trains a tiny model on two devices in a folder that is watched, until it is told to go on or killed.

Started as ``watched_training.py VOCABULARY.json RUN_DIR``. After the first steps of the last epoch it prints
a line, and waits for one on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import tensorflow as tf
from helpers import tiny_text_classifier
from killed_training import CLASSES, split

from tfapp.data.text import TextData
from tfapp.training import Board, Phase, train

EPOCHS = 2


class Wait(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.last = epoch + 1 == EPOCHS

    def on_train_batch_end(self, batch, logs=None):
        if self.last and batch == 1:
            print("waiting", flush=True)  # noqa: T201
            sys.stdin.readline()


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    vocabulary = json.loads(Path(sys.argv[1]).read_text())
    data = TextData(split("train", 34, 1), split("validation", 9, 2), split("test", 4, 3), CLASSES, None, 5)
    strategy = tf.distribute.MirroredStrategy(
        ["/cpu:0", "/cpu:1"], cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
    )
    with strategy.scope():
        train(
            tiny_text_classifier(vocabulary, CLASSES, dropout=0.0, dropout_rate=0.0),
            data,
            phases=[Phase("head", EPOCHS, 0.01)],
            batch_size=8,
            precision="float32",
            run_dir=sys.argv[2],
            callbacks=[Wait()],
            tensorboard=Board(every=2, histograms=True, predictions=3),
            verbose=False,
        )


if __name__ == "__main__":
    main()
