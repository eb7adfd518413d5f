"""Adversarial augmentation in the pipeline beside adversarial training within the step.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/adversarial_augmentation.py [--quick] [--seeds 3]

A small residual network learns 15,000 images of CIFAR-10 from scratch, always under Keras's own `fit`, with
the same network, order of rows, flips, crops, optimizer and number of epochs. What differs is where
adversarial images come from: nowhere; `with_adversarial` against the current weights, with and without a
prefetch; a set frozen against a plainly trained network; or an attack within the step. Prints the time of a
step, clean and robust accuracy, and how many steps older than the weights the images were.

The attack within the step is the objective "adversarial" with its defaults but for batch normalisation, whose
averages come from the adversarial images as in the pipeline; `--objective NAME` takes another one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from reporting import about_run, data_file, markdown_table, report, save

from tfapp import build_image_classifier, load_image_data
from tfapp.attacks import ATTACKS
from tfapp.data.augment import Augmentation, with_adversarial
from tfapp.evaluation.robustness import evaluate_robustness
from tfapp.objectives import make_objective
from tfapp.objectives.standard import Standard
from tfapp.training.trainer import TrainingModel

SIZE, BATCH = 32, 128
EPSILON = 8 / 255
ATTACK = partial(ATTACKS["fgsm"], epsilon=EPSILON, random_start=True)
AUGMENT = Augmentation(horizontal_flip=True, crop=0.7)
PREFETCH = 2
PLAIN = "plain"


def network() -> keras.Model:
    """Three stages of one residual block each, 16 to 64 channels, on raw pixels."""
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    hidden = keras.layers.Rescaling(1 / 64, -2.0)(pixels)
    hidden = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(hidden)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        inner = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
        beside = keras.layers.Conv2D(filters, 1, strides=stride, use_bias=False)(inner)
        inner = keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(inner)
        inner = keras.layers.ReLU()(keras.layers.BatchNormalization()(inner))
        hidden = beside + keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(inner)
    return keras.Model(pixels, keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden)))


def batches(pixels: np.ndarray, labels: np.ndarray, *, seed: int) -> tf.data.Dataset:
    """Shuffled anew and augmented in every epoch."""
    rows = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(len(labels), seed=seed)
    numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)

    def augment(element: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor) -> tuple[Any, tf.Tensor]:
        images, classes = element
        return AUGMENT.images(images, seed=tf.stack([number, number])), classes

    made = tf.data.Dataset.zip((rows.batch(BATCH, drop_remainder=True), numbers)).map(
        augment, num_parallel_calls=2
    )
    return made.prefetch(4)


def attacked(
    data: tf.data.Dataset, model: Any, seed: int, *, ahead: int = 0, fraction: float = 1.0
) -> tf.data.Dataset:
    """The pipeline of `with_adversarial` against the model in training."""
    found = with_adversarial(data, ATTACK, logits_of(model), fraction=fraction, seed=seed)
    return found.prefetch(ahead) if ahead else found


def frozen(data: tf.data.Dataset, seed: int, *, target: Any) -> tf.data.Dataset:
    """Half of the rows attacked once, against another network."""
    found = with_adversarial(data, ATTACK, logits_of(target), fraction=0.5, refresh="never", seed=seed)
    rows = found.unbatch().shuffle(20_000, seed=seed)
    return rows.batch(BATCH, drop_remainder=True).prefetch(4)


def logits_of(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda pixels: model({"pixels": pixels}, training=False)


def oldest(data: tf.data.Dataset, model: Any, trainer: TrainingModel, *, ahead: int) -> int:
    """Trains for an epoch, and tells how many steps ago the oldest image was made."""
    weight = model.trainable_variables[0]
    made: list[float] = []
    before: list[float] = []

    def mark() -> tf.Tensor:
        return tf.reshape(tf.convert_to_tensor(weight), [-1])[0]

    def noting(model_fn: Any, images: tf.Tensor, labels: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.py_function(lambda value: made.append(float(value)), [mark()], [])]):
            return ATTACK(model_fn, images, labels, seed=seed)

    found = with_adversarial(data, noting, logits_of(model), fraction=1.0)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: before.append(float(mark()))
    )
    dataset = named(found.prefetch(ahead) if ahead else found)
    trainer.optimizer.learning_rate = 0.01
    trainer.fit(dataset, verbose=0, shuffle=False, callbacks=[note])
    # The nearest value: beside a step, weights may be read between two of its changes.
    values = np.array(before)
    return max(step - int(np.argmin(np.abs(values - made[step]))) for step in range(len(before)))


def named(data: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    return data.map(lambda pixels, labels: ({"pixels": pixels}, labels)).with_options(options)


class Clock(keras.callbacks.Callback):
    """The seconds of each step; those of the first epoch, which compiles, are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[float] = []
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        if self.epoch:
            self.steps.append(now - self.started)
        self.started = now


def measure(options: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """Trains every contestant with one seed."""
    data = load_image_data(
        data_file("cifar10_subset.tar.gz"), validation_fraction=0.02, near_duplicates="keep", seed=7
    )
    test = shuffled(data.test, seed=0)
    settings = {"attack": ATTACK, "batch_norm": "adversarial"} if options.objective == "adversarial" else {}
    inner = make_objective(options.objective, **settings)
    results: dict[str, dict[str, Any]] = {}
    target = None
    contestants: dict[str, tuple[Any, Callable[..., tf.data.Dataset]]] = {
        PLAIN: (Standard(), lambda rows, model: rows),
        "pipeline": (Standard(), lambda rows, model: attacked(rows, model, seed)),
        f"pipeline, prefetch({PREFETCH})": (
            Standard(),
            lambda rows, model: attacked(rows, model, seed, ahead=PREFETCH),
        ),
        "pipeline, half of the rows": (
            Standard(),
            lambda rows, model: attacked(rows, model, seed, fraction=0.5),
        ),
        "frozen set, half of the rows": (Standard(), lambda rows, model: frozen(rows, seed, target=target)),
        f"within the step ({inner.name})": (inner, lambda rows, model: rows),
    }
    for name, (objective, pipeline) in contestants.items():
        if options.methods and name != PLAIN and name not in options.methods:
            continue
        keras.utils.set_random_seed(seed)
        model = build_image_classifier(
            network(),
            classes=data.classes,
            image_size=SIZE,
            train_batch_norm=True,
            dropout_rate=0.0,
            seed=seed,
        )
        learned = shuffled(data.train, seed=0)
        pixels = model.preprocessor.fixed(learned.images)[0]["pixels"]
        rows, labels = (part[: options.rows] for part in (pixels, learned.labels))
        steps = len(labels) // BATCH * options.epochs
        trainer = TrainingModel(model, objective=objective, total_steps=steps, seed=seed)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trainer.compile(optimizer, loss)
        optimizer.build(trainer.trainable_variables)
        clock, started = Clock(), time.perf_counter()
        made = pipeline(batches(rows, labels, seed=seed), model)
        before = time.perf_counter() - started
        cool = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 * (1 - epoch / options.epochs))
        trainer.fit(named(made), epochs=options.epochs, verbose=0, shuffle=False, callbacks=[clock, cool])
        seconds = time.perf_counter() - started
        # Before the age is measured, which trains on.
        figures = robustness(options, model, test)
        age = 0
        if name.startswith("pipeline"):
            ahead = PREFETCH if "prefetch" in name else 0
            age = oldest(batches(rows[:2000], labels[:2000], seed=seed), model, trainer, ahead=ahead)
        target = model if name == PLAIN else target
        results[name] = {
            "milliseconds": 1000 * statistics.median(clock.steps),
            "seconds": seconds,
            "before": before,
            "age": age,
            **figures,
        }
        print(name, results[name], flush=True)
    return results


def shuffled(split: Any, *, seed: int) -> Any:
    """The rows in an order drawn once: files come sorted by class."""
    order = np.random.default_rng(seed).permutation(len(split))
    digests = tuple(np.array(split.digests)[order])
    return replace(split, images=split.images.take(order), labels=split.labels[order], digests=digests)


def robustness(options: argparse.Namespace, model: Any, split: Any) -> dict[str, Any]:
    """Clean and robust accuracy on the first test images."""
    common = {"epsilon": EPSILON, "norm": "linf", "examples": options.examples, "alarms": False}
    pgd = evaluate_robustness(model, split, attack="pgd", num_steps=20, num_restarts=2, **common)
    figures = {"clean": pgd.clean_accuracy, "pgd": pgd.robust_accuracy, "pgd_interval": pgd.interval95}
    if not options.no_standard:
        standard = evaluate_robustness(model, split, attack="standard", **common)
        figures |= {"standard": standard.robust_accuracy, "standard_interval": standard.interval95}
    return figures


def table(runs: list[dict[str, dict[str, Any]]]) -> str:
    rows = []
    plain = statistics.median(run[PLAIN]["milliseconds"] for run in runs)
    for name in runs[0]:
        of = {key: [run[name][key] for run in runs if key in run[name]] for key in runs[0][name]}
        step = statistics.median(of["milliseconds"])
        rows.append(
            [
                name,
                f"{step:.0f}",
                f"{step / plain:.2f}",
                f"{max(of['age'])}",
                f"{statistics.mean(of['seconds']):.0f}",
                *(percent(of.get(key, [])) for key in ("clean", "pgd", "standard")),
            ]
        )
    header = ["adversarial images", "step, ms", "x plain", "oldest, steps", "training, s", "clean, %"]
    return markdown_table([*header, "PGD-20 x 2, %", "standard, %"], rows)


def percent(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rows, epochs and examples, no `standard`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--objective", default="adversarial", help="what attacks within the step")
    parser.add_argument("--methods", nargs="+", help="some of them only, beside the plain training")
    parser.add_argument("--no-standard", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.epochs, options.rows, options.examples = 1, 2, 1024, 32
        options.no_standard = True
    about = about_run()
    runs = [measure(options, seed) for seed in range(options.seeds)]
    path = save(options.output, "adversarial_augmentation", about, {"runs": runs})
    notes = [
        "linf, epsilon 8/255, FGSM from a random start to train with; PGD: 20 steps, 2 restarts; the first "
        f"{options.examples} test images in the order of numpy's default_rng(0).permutation; mean of "
        f"{options.seeds} seeds of training, ± one standard deviation between them; a single figure of 500 "
        "images has a 95 % interval of about ± 4 points",
        "oldest: most steps between the weights that an image was made against and those that it changed",
        "the time of the frozen set's own attack is within `training`, not within `step`",
        f"figures of every run: {path.name}",
    ]
    report("Adversarial augmentation beside adversarial training within the step", about, table(runs), notes)


if __name__ == "__main__":
    main()
