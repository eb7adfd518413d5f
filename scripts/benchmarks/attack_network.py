"""The network and the images of the attacks' referee: a small hardened ResNet, and CIFAR-10 in order.

Weights travel as an ``.npz`` under the names of their layers, so that a peer can copy them.
"""

from __future__ import annotations

import io
import sys
import tarfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tfapp.attacks import make_attack

EPSILON = 8 / 255
WIDTHS = (16, 32, 64)
BLOCKS = 2  # in each stage


def read_images(archive: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a split in the order of its file names, which are the numbers that CIFAR-10 gives the images."""
    with tarfile.open(archive) as members:
        files = {
            member.name: members.extractfile(member).read()
            for member in members
            if member.isfile() and member.name.split("/")[1] == split
        }
    classes = sorted({name.split("/")[2] for name in files})
    names = sorted(files, key=lambda name: (name.rsplit("/", 1)[1], name))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for name in names])
    labels = np.array([classes.index(name.split("/")[2]) for name in names], np.int32)
    return pixels.astype(np.float32), labels


def build_network() -> keras.Model:
    """A ResNet of basic blocks for pixels 0..255; every convolution has a norm behind it."""

    def convolved(values, name, width, size, stride):
        if size == 3 and stride > 1:
            values = keras.layers.ZeroPadding2D(1)(values)  # pads evenly, as PyTorch does
        padding = "same" if stride == 1 else "valid"
        layer = keras.layers.Conv2D(
            width, size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv"
        )
        return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_norm")(layer(values))

    inputs = keras.Input((32, 32, 3))
    values = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    values = keras.layers.ReLU()(convolved(values, "stem", WIDTHS[0], 3, 1))
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            name, stride = f"stage{stage}_block{block}", 2 if stage and not block else 1
            inner = keras.layers.ReLU()(convolved(values, f"{name}_1", width, 3, stride))
            inner = convolved(inner, f"{name}_2", width, 3, 1)
            shortcut = convolved(values, f"{name}_0", width, 1, stride) if stride > 1 else values
            values = keras.layers.ReLU()(inner + shortcut)
    values = keras.layers.GlobalAveragePooling2D()(values)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(values))


def save_weights(model: keras.Model, file: Path) -> None:
    """Writes the weights under the names of their layers: kernel; scale, offset, mean, variance; or bias."""
    arrays = {
        f"{layer.name}.{place}": value
        for layer in model.layers
        for place, value in enumerate(layer.get_weights())
    }
    np.savez(file, **arrays)


def load_weights(model: keras.Model, file: Path) -> None:
    """Sets the weights that `save_weights` wrote."""
    with np.load(file) as arrays:
        for layer in model.layers:
            layer.set_weights([arrays[f"{layer.name}.{place}"] for place in range(len(layer.weights))])


def copy_weights(classifier: keras.Model, model: keras.Model) -> None:
    """Gives the network the weights of a classifier on the same network without its head."""
    for layer in model.layers:
        source = classifier.layers[-1] if layer.name == "head" else classifier.backbone.get_layer(layer.name)
        layer.set_weights(source.get_weights())


def train_network(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int = 0
) -> None:
    """Trains on FGSM from random starts with SGD, flips and shifts; the learning rate rises and falls."""
    batch = 64
    steps = len(images) // batch * epochs
    schedule = keras.optimizers.schedules.PolynomialDecay
    optimizer = keras.optimizers.SGD(
        schedule(0.1, steps, 0.0), momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    optimizer.build(model.trainable_variables)
    attack = make_attack("fgsm", epsilon=EPSILON, random_start=True)

    @tf.function
    def step(pixels, truth, seed):
        hardened = attack(lambda inputs: model(inputs, training=False), pixels, truth, seed=seed)
        with tf.GradientTape() as tape:
            logits = model(hardened, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    def varied(pixels, truth, number):
        seeds = tf.random.split(tf.stack([tf.cast(number, tf.int32), seed]), 2)
        pixels = tf.image.stateless_random_flip_left_right(pixels, seeds[0])
        padded = tf.pad(pixels, [[4, 4], [4, 4], [0, 0]])
        return tf.image.stateless_random_crop(padded, [32, 32, 3], seeds[1]), truth

    data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed)
    data = data.repeat(epochs).enumerate().map(lambda number, row: varied(*row, number))
    began = time.perf_counter()
    for number, (pixels, truth) in enumerate(data.batch(batch, drop_remainder=True).prefetch(2)):
        loss = step(pixels, truth, tf.constant([number, seed]))
        if number % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"step {number} of {steps}: loss {loss:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)
