"""The image input pipeline alone, beside TensorFlow's JPEG decoder with nothing around it.

    python scripts/benchmarks/input_pipeline.py [--quick] [--output FOLDER]

Images a second of `training_batches` over `ImageRows` (shuffled, read, decoded, oriented, resized, batched),
beside `tf.io.decode_jpeg` of the same bytes with as many parallel calls, and beside two common ways to write
a pipeline. Photographs are generated: noise that is smooth as photographs are, JPEG quality 90; all
contestants hold them in memory and take turns.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image
from reporting import about_run, markdown_table, report, save, versions

from tfapp.data.bucketing import training_batches
from tfapp.data.image_decoding import ImageDecoder

SIZE = 224
BATCH = 16
CALLS = 2
AHEAD = 4
RATIOS = (1, 2, 4, 8)
BATCHES = {(500, 375): 80, (1024, 768): 30, (4000, 3000): 4}
LIMIT = "tf.io.decode_jpeg alone"
SMALLER = "tf.io.decode_jpeg alone, at the ratio that tfapp takes"
OURS = "tfapp input pipeline"


def photograph(width: int, height: int, seed: int) -> bytes:
    """Noise whose strength falls with its frequency, as in photographs, and a little grain."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(size=(cells * height // width + 1, cells + 1, 3)).astype(np.float32)
        pixels += 90 / np.sqrt(cells) * tf.image.resize(coarse, (height, width), method="bicubic").numpy()
    pixels += rng.normal(size=pixels.shape).astype(np.float32) * 6
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def resize(antialias: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    def decode_and_resize(contents: tf.Tensor) -> tf.Tensor:
        pixels = tf.image.resize(tf.io.decode_jpeg(contents, channels=3), (SIZE, SIZE), antialias=antialias)
        return tf.cast(tf.round(pixels), tf.uint8)

    return decode_and_resize


def mapped(contents: list[bytes], function: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """The plain pipeline: a function of one image in parallel calls."""
    options = tf.data.Options()
    options.autotune.enabled = False
    images = tf.data.Dataset.from_tensor_slices(contents).repeat()
    return images.map(function, num_parallel_calls=CALLS).batch(BATCH).prefetch(AHEAD).with_options(options)


def decoded(ratio: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Decodes and passes on no pixels: batching them would cost time."""

    def decoded_size(contents: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(contents, channels=3, ratio=ratio)
        return tf.shape(pixels)[0] + tf.cast(pixels[0, 0, 0], tf.int32)

    return decoded_size


def ours(contents: list[bytes]) -> tf.data.Dataset:
    decoder = ImageDecoder(SIZE)
    rows = decoder.make_rows(decoder.encode(contents))
    return training_batches(rows, np.zeros(len(contents), np.int32), batch_size=BATCH, seed=0)


def measure(contents: list[bytes], ratio: int, batches: int, rounds: int) -> dict[str, list[float]]:
    """Images a second of every contestant in every round."""
    ways = {
        LIMIT: mapped(contents, decoded(1)),
        **({SMALLER: mapped(contents, decoded(ratio))} if ratio > 1 else {}),
        OURS: ours(contents),
        "decode_jpeg, tf.image.resize": mapped(contents, resize(False)),
        "decode_jpeg, tf.image.resize(antialias=True)": mapped(contents, resize(True)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    running = {name: iter(dataset) for name, dataset in ways.items()}
    for number in range(rounds + 1):
        for name, iterator in running.items():
            for _ in range(AHEAD + CALLS):  # made while the others were measured
                next(iterator)
            started = time.perf_counter()
            for _ in range(batches):
                next(iterator)
            if number:  # the first round warms up
                rates[name].append(batches * BATCH / (time.perf_counter() - started))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of few images: a check only")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default: 9)")
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    about = about_run(versions("pillow"))
    rows: list[list[str]] = []
    figures: dict[str, Any] = {}
    for (width, height), batches in BATCHES.items():
        files = [photograph(width, height, seed) for seed in range(4 if options.quick else BATCH)]
        ratio = max(ratio for ratio in RATIOS if ratio * SIZE <= min(width, height))
        rates = measure(files * (BATCH // len(files)), ratio, 1 if options.quick else batches, rounds)
        kilobytes = statistics.fmean(map(len, files)) / 1000
        figures[f"{width}x{height}"] = {"kilobytes": kilobytes, "images_per_second": rates}
        for name, taken in rates.items():
            shares = [one / limit for one, limit in zip(taken, rates[LIMIT], strict=True)]
            figure = f"{statistics.median(taken):,.0f}", f"{statistics.median(shares):.0%}"
            rows.append([f"{width} x {height}, {kilobytes:,.0f} kB: {name}", *figure])
    table = markdown_table([f"JPEG to {SIZE} x {SIZE} pixels", "images/s", "share of the limit"], rows)
    notes = [
        f"medians over {rounds} rounds, shares within a round; batches of {BATCH}, {CALLS} parallel calls",
        "the limit decodes and does nothing else; the pipeline also reads headers, refuses what is unsafe, "
        "shrinks by averaging over areas, rounds and batches; it takes large photographs smaller out of the "
        "decoder",
    ]
    report("Image input pipeline", about, table, notes)
    if options.output:
        print(save(options.output, "input-pipeline", about, {"figures": figures}))


if __name__ == "__main__":
    main()
