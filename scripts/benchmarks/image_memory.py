"""Memory of preparing image data: the peak for a tenth and for all of many generated images of mixed sizes.

    python scripts/benchmarks/image_memory.py [--quick] [--images 50000] [--folder FOLDER] [--output FOLDER]

The images are windows of random size (32 to 640 pixels a side) and place out of smooth random pictures with
noise: seven tenths JPEG, the others PNG. Every measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
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


def measure(folder: Path, images: int) -> dict[str, Any]:
    """Prepares the first images of a folder and tells what that took, and what a small set took before."""
    from tfapp.data.image import load_image_data

    paths = sorted(folder.glob("*/*"), key=lambda path: path.name)[:images]
    rows = [(str(path), path.parent.name) for path in paths]
    load_image_data(rows[:SMALL_SET])
    before = peak_mib()
    started = time.perf_counter()
    data = load_image_data(rows)
    with tempfile.TemporaryDirectory() as saved:
        data.save(Path(saved) / "data")
    seconds = time.perf_counter() - started
    return {
        "images": len(rows),
        "megabytes": sum(path.stat().st_size for path in paths) / 1e6,
        "seconds": seconds,
        "before_mib": before,
        "peak_mib": peak_mib(),
        "near_duplicates": sum(entry.pairs for entry in data.report.images.near_duplicates),
    }


def peak_mib() -> float:
    """Tells the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_process(mode: str, folder: Path, images: int) -> str:
    """Runs a part of this script in a process of its own and returns what it printed."""
    command = [sys.executable, __file__, "--folder", str(folder), "--images", str(images), "--part", mode]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 images: a check only")
    parser.add_argument("--images", type=int, default=50_000, help="how many (default: 50,000)")
    parser.add_argument("--folder", type=Path, help="where the images are kept; default: a temporary folder")
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    parser.add_argument("--part", choices=("generate", "measure"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "generate":
        return generate(options.folder, options.images)
    if options.part == "measure":
        return print(json.dumps(measure(options.folder, options.images)))
    images = 1000 if options.quick else options.images
    about = about_run()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        own_process("generate", folder, images)
        figures = [json.loads(own_process("measure", folder, count)) for count in (images // 10, images)]
    small, large = figures
    rows = [
        [
            f"{figure['images']:,} images, {figure['megabytes']:,.0f} MB",
            f"{figure['peak_mib']:,.0f}",
            f"{figure['peak_mib'] - figure['before_mib']:,.0f}",
            f"{figure['images'] / figure['seconds']:,.0f}",
        ]
        for figure in figures
    ]
    growth = (large["peak_mib"] - small["peak_mib"]) * 1024 / (large["images"] - small["images"])
    table = markdown_table(
        ["prepare", "peak RSS, MiB", f"more than for {SMALL_SET} images", "images/s"], rows
    )
    notes = [
        f"An image more takes {growth:.1f} KiB more: its path, checksum and label.",
        "The peak holds TensorFlow, the graph of the decoder and the largest images of a batch.",
    ]
    report("Memory of preparing images", about, table, notes)
    if options.output:
        save(options.output, "image-memory", about, {"prepare": figures})


if __name__ == "__main__":
    main()
