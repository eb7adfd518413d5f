"""One measurement of training on images with tfapp, or with plain Keras beside it; prints one JSON line.

    python scripts/benchmarks/image_ours.py speed|keras|head|frozen --precision float32|mixed_bfloat16

speed   whole-network training of ResNet50 through `train`, images decoded in every step
keras   the same network under plain `fit`, on arrays in memory
head    the head phase on cached features of augmented views, the computing of features counted
frozen  the same head under plain `fit`: frozen backbone, Keras's own augmentation layers in the pipeline
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from reporting import data_file

from tfapp import Phase, build_image_classifier, evaluate, load_image_data, train
from tfapp.training.schedules import WarmupDecay

AUGMENT = {"horizontal_flip": True, "vertical_flip": True}
LEARNING_RATE = 5e-3


class Clock(keras.callbacks.Callback):
    """Notes when the last epoch began and ended."""

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.ended = time.perf_counter()


class StepClock(keras.callbacks.Callback):
    """Notes the time after each step."""

    def __init__(self):
        super().__init__()
        self.ticks: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.ticks.append(time.perf_counter())


def arrays(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noise in ten classes, all different, as many rows as the counted steps take."""
    rows = options.steps * options.batch_size
    generator = np.random.default_rng(options.seed)
    pixels = generator.integers(0, 256, (rows, options.image_size, options.image_size, 3), np.uint8)
    return pixels, np.arange(rows) % 10


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Times the second of two epochs: the first one traces the step and warms up."""
    few = np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), np.uint8)
    data = load_image_data(
        arrays(options),
        validation=(few[:10], np.arange(10)),
        test=(few[10:], np.arange(10)),
        near_duplicates="keep",
    )
    model = build_image_classifier(
        "resnet50-nsfw", classes=data.classes, image_size=options.image_size, seed=options.seed
    )
    clock = Clock()
    train(
        model,
        data,
        phases=[Phase("all", 2, 1e-4)],
        batch_size=options.batch_size,
        precision=options.precision,
        callbacks=[clock],
        seed=options.seed,
        verbose=False,
    )
    seconds = clock.ended - clock.began
    return {"images_per_second": len(data.train) / seconds, "seconds": seconds}


def measure_keras(options: argparse.Namespace) -> dict[str, Any]:
    """keras.applications' ResNet50 as it comes, its batch normalisation trained unless `--freeze-norm`."""
    keras.config.set_dtype_policy(options.precision)
    size = options.image_size
    backbone = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    if options.freeze_norm:
        for layer in backbone.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    logits = keras.layers.Dense(10, dtype="float32")(backbone.output)
    model = keras.Model(backbone.input, logits)
    model.compile(
        keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pixels, labels = arrays(options)
    dataset = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(options.batch_size)
    dataset = dataset.map(lambda image, label: (tf.cast(image, tf.float32), label)).repeat(2).prefetch(2)
    clock = StepClock()
    model.fit(dataset, steps_per_epoch=2 + options.steps, callbacks=[clock], verbose=0)
    seconds = clock.ticks[-1] - clock.ticks[1]
    return {"images_per_second": options.steps * options.batch_size / seconds, "seconds": seconds}


def measure_head(options: argparse.Namespace) -> dict[str, Any]:
    data = load_image_data(_magnetic_tile(), validation_fraction=0.15, seed=7)
    model = build_image_classifier(
        options.backbone, classes=data.classes, image_size=options.image_size, seed=options.seed
    )
    started = time.perf_counter()
    train(
        model,
        data,
        phases=[Phase("head", options.epochs, LEARNING_RATE)],
        batch_size=options.batch_size,
        augment=AUGMENT,
        views=2,
        precision=options.precision,
        keep_best=False,
        seed=options.seed,
        verbose=False,
    )
    return {"seconds": time.perf_counter() - started, **_scores(model, data)}


def measure_frozen(options: argparse.Namespace) -> dict[str, Any]:
    data = load_image_data(_magnetic_tile(), validation_fraction=0.15, seed=7)
    keras.utils.set_random_seed(options.seed)
    model = build_image_classifier(
        options.backbone,
        classes=data.classes,
        image_size=options.image_size,
        seed=options.seed,
        dtype=options.precision,
    )
    model.backbone.trainable = False
    flips = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomFlip("vertical")]
    decoder = model.preprocessor

    def augmented(pixels: Any, labels: Any) -> Any:
        for layer in flips:
            pixels = layer(pixels, training=True)
        return {"pixels": pixels}, labels

    def batches(split: Any) -> tf.data.Dataset:
        names = [split.images.name(row) for row in range(len(split))]
        dataset = tf.data.Dataset.from_tensor_slices((names, split.labels))
        dataset = dataset.shuffle(len(names), seed=options.seed).repeat()
        dataset = dataset.map(lambda name, label: (decoder.decode(tf.io.read_file(name)), label), 2)
        return dataset.batch(options.batch_size).map(augmented, 2).prefetch(2)

    steps = -(-len(data.train) // options.batch_size)
    total = steps * options.epochs
    started = time.perf_counter()
    model.compile(
        keras.optimizers.AdamW(
            WarmupDecay(LEARNING_RATE, total, round(0.1 * total)), weight_decay=0.01, global_clipnorm=1.0
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches(data.train), steps_per_epoch=steps, epochs=options.epochs, verbose=0)
    return {"seconds": time.perf_counter() - started, **_scores(model, data)}


def _magnetic_tile() -> Path:
    """Unpacks the photographs, so that both sides read plain files."""
    folder = Path(tempfile.gettempdir()) / "tfapp-benchmark-magnetic-tile"
    if not folder.is_dir():
        with tarfile.open(data_file("magnetic_tile.tar.gz")) as archive:
            archive.extractall(folder, filter="data")
    return folder / "magnetic_tile"


def _scores(model: Any, data: Any) -> dict[str, float]:
    evaluation = evaluate(model, data.test, num_bootstrap=10)
    return {
        "accuracy": evaluation.accuracy.value,
        "balanced_accuracy": evaluation.balanced_accuracy.value,
        "images": len(data.train),
    }


MODES = {
    "speed": measure_speed,
    "keras": measure_keras,
    "head": measure_head,
    "frozen": measure_frozen,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--backbone", default="mobilenet-v2", help="of head and frozen")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="counted ones of speed and keras")
    parser.add_argument("--epochs", type=int, default=10, help="of head and frozen")
    parser.add_argument("--freeze-norm", action="store_true", help="of keras: batch normalisation is frozen")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    about = {"mode": options.mode, "precision": options.precision, "seed": options.seed}
    about["versions"] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    print(json.dumps(about | MODES[options.mode](options)), flush=True)


if __name__ == "__main__":
    main()
