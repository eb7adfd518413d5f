"""The side of tfapp in the training benchmarks, each mode in a process of its own. Prints one JSON line.

speed     full fine-tuning through `tfapp.train`
head      10 epochs of the head alone through `tfapp.train`, which caches the frozen backbone's outputs
frozen    the same 10 epochs in plain Keras `fit` with a frozen backbone, on the same padded batches
peak      the fastest matrix multiplication of this machine in TensorFlow
accuracy  test accuracy of a recipe
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from reporting import data_file

from tfapp import Phase, TextData, build_text_classifier, load_text_data, train
from tfapp.data.bucketing import TokenRows, evaluation_batches, training_batches
from tfapp.data.text import TextSplit
from tfapp.training.inference import predict_logits

BATCH_SIZE = 32
MAX_LENGTH = 128
BACKBONE = "minilm-l6"
PEAK_SIZES = (768, 1024, 1536, 2048, 3072, 4096)


class Clock(keras.callbacks.Callback):
    """Notes when the last epoch began and when its last step ended."""

    began = ended = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()


def load(data_set: str, *, seed: int, limit: int | None) -> TextData:
    """Loads a data set; where it brings no validation file, the rows drawn for validation are trained on too.

    So training has every row that the peers train on, but for duplicates and for texts that stand in the test
    split; nothing is chosen by validation in these runs.
    """
    folder = data_file(data_set, "train.csv").parent
    validation = folder / "validation.csv"
    given = validation if validation.is_file() else None
    data = load_text_data(folder / "train.csv", validation=given, test=folder / "test.csv", seed=seed)
    if given is None:
        texts = data.train.texts + data.validation.texts
        labels = np.concatenate([data.train.labels, data.validation.labels])
        data = replace(data, train=replace(data.train, texts=texts, labels=labels))
    if limit is None:
        return data
    return replace(data, train=head(data.train, limit), validation=head(data.validation, 64))


def head(split: TextSplit, rows: int) -> TextSplit:
    return replace(split, texts=split.texts[:rows], labels=split.labels[:rows])


def token_rows(model, split: TextSplit) -> TokenRows:
    tokenizer = model.preprocessor
    return TokenRows(tokenizer.encode(split.texts, max_length=MAX_LENGTH), pad_id=tokenizer.pad_id)


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Times the second of two epochs: the first one traces the step and warms up."""
    data = load(options.data_set, seed=options.seed, limit=options.limit)
    model = build_text_classifier(options.backbone, classes=data.classes, seed=options.seed)
    clock = Clock()
    history = train(
        model,
        data,
        phases=[Phase("all", 2, 5e-5)],
        batch_size=BATCH_SIZE,
        max_length=MAX_LENGTH,
        precision=options.precision,
        seed=options.seed,
        callbacks=[clock],
        verbose=False,
    )
    seconds = clock.ended - clock.began
    matrices = [v for v in model.trainable_variables if "embedding" not in v.path and len(v.shape) > 1]
    parameters = sum(int(np.prod(v.shape)) for v in matrices)
    tokens = float(np.mean(token_rows(model, data.train).lengths))
    speed = len(data.train) / seconds
    return {
        "examples_per_second": speed,
        "seconds": seconds,
        "steps": -(-len(data.train) // BATCH_SIZE),
        "tokens_per_example": tokens,
        "padding_share": history.padding_share,
        "parameters": parameters,
        "gflops_per_second": 6 * parameters * tokens * speed / 1e9,
    }


def measure_head(options: argparse.Namespace) -> dict[str, Any]:
    data = load("sst2", seed=options.seed, limit=options.limit)
    model = build_text_classifier(BACKBONE, classes=data.classes, seed=options.seed)
    started = time.perf_counter()
    history = train(
        model,
        data,
        phases=[Phase("head", options.epochs, 1e-3)],
        batch_size=BATCH_SIZE,
        max_length=MAX_LENGTH,
        precision=options.precision,
        seed=options.seed,
        verbose=False,
    )
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "epochs": options.epochs, "val_accuracy": history.epochs[-1]["val_accuracy"]}


def measure_frozen(options: argparse.Namespace) -> dict[str, Any]:
    data = load("sst2", seed=options.seed, limit=options.limit)
    keras.utils.set_random_seed(options.seed)
    model = build_text_classifier(BACKBONE, classes=data.classes, seed=options.seed, dtype=options.precision)
    model.backbone.trainable = False
    started = time.perf_counter()
    batches = training_batches(
        token_rows(model, data.train), data.train.labels, batch_size=BATCH_SIZE, seed=options.seed
    )
    validation, _ = evaluation_batches(
        token_rows(model, data.validation), data.validation.labels, batch_size=128
    )
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        batches,
        steps_per_epoch=-(-len(data.train) // BATCH_SIZE),
        epochs=options.epochs,
        validation_data=validation,
        verbose=0,
    )
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "epochs": options.epochs, "val_accuracy": history.history["val_accuracy"][-1]}


def measure_peak(options: argparse.Namespace) -> dict[str, Any]:
    """Times square products in a compiled loop, so that only the multiplication counts."""
    dtype = tf.bfloat16 if options.precision == "mixed_bfloat16" else tf.float32
    best: dict[int, float] = {}
    for size in PEAK_SIZES[:2] if options.limit else PEAK_SIZES:
        left = tf.cast(tf.random.normal((size, size)), dtype)
        right = tf.cast(tf.random.normal((size, size)), dtype)
        multiply = tf.function(lambda a, b: tf.matmul(a, b))
        multiply(left, right)
        for _ in range(3 if options.limit else 12):
            repeats = max(1, int(2e10 / size**3))
            started = time.perf_counter()
            for _ in range(repeats):
                product = multiply(left, right)
            product.numpy()
            rate = repeats * 2 * size**3 / (time.perf_counter() - started) / 1e9
            best[size] = max(best.get(size, 0.0), rate)
    return {"gflops_per_second": max(best.values()), "by_size": best}


def measure_accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Trains a recipe and scores every row of the test file as it stands, like the peer does."""
    data = load(options.data_set, seed=options.seed, limit=options.limit)
    keras.utils.set_random_seed(options.seed)
    recipe = json.loads(options.recipe)
    model = build_text_classifier(
        BACKBONE, classes=data.classes, seed=options.seed, **recipe.get("model", {})
    )
    phases = [Phase(**phase) for phase in recipe["phases"]]
    started = time.perf_counter()
    train(
        model,
        data,
        phases=phases,
        batch_size=BATCH_SIZE,
        max_length=MAX_LENGTH,
        precision=options.precision,
        seed=options.seed,
        verbose=False,
        **recipe.get("train", {}),
    )
    seconds = time.perf_counter() - started
    test = pd.read_csv(data_file(options.data_set, "test.csv"), dtype=str, keep_default_na=False)
    test = test[: options.limit]
    predicted = np.array(data.classes)[predict_logits(model, test["text"].tolist()).argmax(-1)]
    accuracy = float(np.mean(predicted == test["label"].to_numpy()))
    return {"accuracy": accuracy, "seconds": seconds, "rows": len(data.train), "test_rows": len(test)}


MODES = {
    "speed": measure_speed,
    "head": measure_head,
    "frozen": measure_frozen,
    "peak": measure_peak,
    "accuracy": measure_accuracy,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "auto"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10, help="of head and frozen")
    parser.add_argument("--backbone", default=BACKBONE, help="of speed")
    parser.add_argument(
        "--data-set",
        choices=("sst2", "banking77", "chnsenticorp"),
        default="sst2",
        help="of speed and accuracy",
    )
    parser.add_argument("--recipe", help="of accuracy: JSON with phases, and arguments for model and train")
    parser.add_argument("--limit", type=int, help="use only the first rows; for a quick check")
    options = parser.parse_args()
    result = MODES[options.mode](options)
    about = {"mode": options.mode, "precision": options.precision, "seed": options.seed}
    about["versions"] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    print(json.dumps(about | result), flush=True)


if __name__ == "__main__":
    main()
