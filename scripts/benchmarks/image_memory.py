"""Memory of preparing image data and of training on them: the peaks for a tenth and for all of many images.

    python scripts/benchmarks/image_memory.py [--quick] [--images 50000] [--folder FOLDER] [--output FOLDER]

The images are windows of random size (32 to 640 pixels a side) and place out of smooth random pictures with
noise: seven tenths JPEG, the others PNG. Every measurement is a process of its own; those of training read
what was prepared, and train the packaged MobileNetV2 for an epoch on 32 x 32 pixels: its head on cached
features of two augmented views, and all of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reporting import about_run, markdown_table, report, save

CLASSES = 4
SMALLEST, LARGEST = 32, 640
SMALL_SET = 64


def generate(folder: Path, images: int) -> None:
    """Writes the images that the folder does not hold yet, as ``<class>/<number>.<suffix>``."""
    import tensorflow as tf

    present = folder / f"{images}.complete"
    if present.exists():
        return
    for number in range(CLASSES):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
    coarse = tf.random.stateless_uniform((16, 24, 24, 3), seed=(1, 2), maxval=255)
    pictures = tf.image.resize(coarse, (LARGEST * 2, LARGEST * 2), method="bicubic")
    noise = tf.random.stateless_normal(tf.shape(pictures), seed=(3, 4), stddev=6)
    pictures = tf.cast(tf.clip_by_value(pictures + noise, 0, 255), tf.uint8)

    def write(number: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([number, 0])
        sides = tf.random.stateless_uniform((2,), seed, SMALLEST, LARGEST + 1, tf.int32)
        places = tf.random.stateless_uniform((2,), seed + [0, 1], 0, LARGEST, tf.int32)
        window = tf.slice(pictures[number % 16], [places[0], places[1], 0], [sides[0], sides[1], 3])
        jpeg = number % 10 < 7
        content = tf.cond(jpeg, lambda: tf.io.encode_jpeg(window), lambda: tf.io.encode_png(window))
        name = tf.strings.join(
            [
                str(folder),
                "/",
                tf.strings.as_string(number % CLASSES),
                "/",
                tf.strings.as_string(number, width=7, fill="0"),
                tf.where(jpeg, ".jpg", ".png"),
            ]
        )
        tf.io.write_file(name, content)
        return number

    for _ in tf.data.Dataset.range(images).map(
        lambda number: write(tf.cast(number, tf.int32)), num_parallel_calls=tf.data.AUTOTUNE
    ):
        pass
    present.touch()


def first_rows(folder: Path, images: int) -> list[tuple[str, str]]:
    """The first images of a folder with their classes."""
    paths = sorted(folder.glob("*/*"), key=lambda path: path.name)[:images]
    return [(str(path), path.parent.name) for path in paths]


def prepare(folder: Path, images: int) -> dict[str, Any]:
    """Prepares the first images of a folder and tells what that took, and what a small set took before."""
    from tfapp.data.image import load_image_data

    rows = first_rows(folder, images)
    load_image_data(rows[:SMALL_SET], near_duplicates="keep")
    before = peak_mib()
    started = time.perf_counter()
    data = load_image_data(rows)
    data.save(folder / f"prepared-{images}")
    return {
        "images": len(rows),
        "seconds": time.perf_counter() - started,
        "before_mib": before,
        "peak_mib": peak_mib(),
        "megabytes": sum(Path(path).stat().st_size for path, _ in rows) / 1e6,
        "near_duplicates": sum(entry.pairs for entry in data.report.images.near_duplicates),
    }


def train_on(folder: Path, images: int, phase: str) -> dict[str, Any]:
    """Trains for an epoch on what was prepared, after an epoch on a small set."""
    from tfapp import Phase, build_image_classifier, load_image_data, train
    from tfapp.data import feature_cache
    from tfapp.data.image import ImageData

    def run(data: ImageData) -> float:
        model = build_image_classifier("mobilenet-v2", classes=data.classes, image_size=32)
        started = time.perf_counter()
        train(
            model,
            data,
            phases=[Phase(phase, 1, 1e-3)],
            batch_size=64,
            augment={"horizontal_flip": True},
            views=2 if phase == "head" else 1,
            verbose=False,
        )
        return time.perf_counter() - started

    # As for many images, so that both measurements read features from disk.
    feature_cache.IN_MEMORY_MEGABYTES = 0.0
    run(load_image_data(first_rows(folder, SMALL_SET), near_duplicates="keep"))
    before = peak_mib()
    seconds = run(ImageData.load(folder / f"prepared-{images}"))
    return {"images": images, "seconds": seconds, "before_mib": before, "peak_mib": peak_mib()}


PARTS: dict[str, Callable[[Path, int], Any]] = {
    "generate": generate,
    "prepare": prepare,
    "train the head": lambda folder, images: train_on(folder, images, "head"),
    "train everything": lambda folder, images: train_on(folder, images, "all"),
}


def peak_mib() -> float:
    """Tells the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_process(part: str, folder: Path, images: int) -> str:
    """Runs a part of this script in a process of its own and returns what it printed."""
    command = [sys.executable, __file__, "--folder", str(folder), "--images", str(images), "--part", part]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 images: a check only")
    parser.add_argument("--images", type=int, default=50_000, help="how many (default: 50,000)")
    parser.add_argument("--folder", type=Path, help="where the images are kept; default: a temporary folder")
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return print(json.dumps(PARTS[options.part](options.folder, options.images)))
    images = 1000 if options.quick else options.images
    about = about_run()
    figures: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        own_process("generate", folder, images)
        for part in list(PARTS)[1:]:
            figures[part] = [json.loads(own_process(part, folder, count)) for count in (images // 10, images)]
    rows, notes = [], []
    for part, measured in figures.items():
        small, large = measured
        for figure in measured:
            peak, seconds = figure["peak_mib"], figure["seconds"]
            more = f"{peak - figure['before_mib']:,.0f}"
            rows.append([part, f"{figure['images']:,}", f"{peak:,.0f}", more, f"{seconds:,.0f}"])
        growth = (large["peak_mib"] - small["peak_mib"]) * 1024 / (large["images"] - small["images"])
        notes.append(f"{part}: an image more takes {growth:.1f} KiB more")
    table = markdown_table(
        ["what", "images", "peak RSS, MiB", f"more than for {SMALL_SET} images", "seconds"], rows
    )
    megabytes = figures["prepare"][1]["megabytes"]
    report(f"Memory, {images:,} images of {megabytes:,.0f} MB", about, table, notes)
    if options.output:
        save(options.output, "image-memory", about, {"figures": figures})
    return None


if __name__ == "__main__":
    main()
