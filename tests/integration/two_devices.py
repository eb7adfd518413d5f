"""Trains each objective on one and on two devices, and prints how far the results are apart, as JSON.

Each replica draws random starts of its own. So that SMART and VAT, which know no other start, can be
compared, theirs is here the same for all rows; everything behind the start is as in training.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.models import build_image_classifier, build_text_classifier
from tfapp.objectives import _smoothness, make_objective
from tfapp.objectives._perturbation import towards
from tfapp.training.losses import make_loss
from tfapp.training.perturbing import make_perturbing
from tfapp.training.trainer import TrainingModel

ROWS, STEPS = 16, 20
DEVICES = ["/cpu:0", "/cpu:1"]
SETTINGS = {
    "standard": {},
    "adversarial": {"epsilon": 0.05, "num_steps": 2, "random_start": False, "adversarial_weight": 0.7},
    "free": {"epsilon": 0.05, "replays": 2, "random_start": False},
    "trades": {"epsilon": 0.05, "num_steps": 2, "random_start": False},
    "mart": {"epsilon": 0.05, "num_steps": 2, "random_start": False},
    "fgm": {"epsilon": 0.1},
    "freelb": {"epsilon": 0.1},
    "smart": {"epsilon": 0.1},
    "vat": {"epsilon": 0.1},
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "adamw": lambda: keras.optimizers.AdamW(1e-3),
}


def same_start(place, radius, seed):
    """Stands for `noise`: as long, in one direction for all rows, steps and replicas."""
    drawn = tf.random.stateless_normal(tf.shape(place.values[:1]), [1, 2])
    return towards(place, drawn * tf.ones_like(place.values), radius)


def make_image_model(*, normalised=False):
    pixels = keras.Input((32, 32, 3), name="pixels")
    hidden = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(pixels / 255.0)
    if normalised:
        hidden = keras.layers.BatchNormalization(synchronized=True)(hidden)
    hidden = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(hidden)
    return build_image_classifier(
        keras.Model(pixels, hidden),
        classes=("a", "b", "c"),
        image_size=32,
        dropout_rate=0.0,
        train_batch_norm=normalised,
    )


def make_text_model():
    import keras_hub

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(pieces),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        dropout=0.0,
        max_sequence_length=16,
    )
    tokenizer = WordPieceTokenizer(pieces, max_length=16)
    return build_text_classifier(
        backbone, classes=("a", "b", "c"), pooling="mean", tokenizer=tokenizer, dropout_rate=0.0
    )


def make_rows(kind):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, ROWS).astype(np.int32)
    if kind != "text":
        return {"pixels": draw.integers(0, 256, (ROWS, 32, 32, 3)).astype(np.float32)}, labels
    ids = draw.integers(5, 21, (ROWS, 9)).astype(np.int32)
    mask = (np.arange(9) < draw.integers(4, 10, ROWS)[:, None]).astype(np.int32)
    return {"token_ids": ids * mask, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}, labels


def run(kind, name, optimizer, strategy, *, predict=True):
    inputs, labels = make_rows(kind)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = make_text_model() if kind == "text" else make_image_model(normalised=kind == "normalised")
        objective = make_objective(name, **SETTINGS[name])
        perturbing = make_perturbing(model, "all", objective, fused=None, precision="float32")
        trainer = TrainingModel(model, objective=objective, perturbing=perturbing, total_steps=STEPS)
        loss = make_loss("cross_entropy")
        trainer.compile(optimizer=OPTIMIZERS[optimizer](), loss=loss, jit_compile=False)
        trainer.optimizer.build(trainer.trainable_variables)
    rows = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(ROWS).repeat(STEPS)
    trainer.fit(rows, epochs=1, verbose=0)
    logits = model.predict(inputs, verbose=0) if predict else model(inputs, training=False).numpy()
    return model.get_weights(), logits


def main():
    _smoothness.noise = same_start
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # The default collectives of CPUs can wait forever for the sparse gradients of embeddings.
    copying = tf.distribute.HierarchicalCopyAllReduce()
    apart = {}
    for task in sys.argv[1:]:
        kind, name, optimizer = task.split(":")
        alone = run(kind, name, optimizer, tf.distribute.OneDeviceStrategy("/cpu:0"))
        both = run(kind, name, optimizer, tf.distribute.MirroredStrategy(DEVICES, cross_device_ops=copying))
        weights = max(np.abs(one - other).max() for one, other in zip(alone[0], both[0], strict=True))
        apart[task] = {"weights": float(weights), "logits": float(np.abs(alone[1] - both[1]).max())}
    print(json.dumps(apart))


if __name__ == "__main__":
    main()
