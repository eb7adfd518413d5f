"""Shards at scale: rows a second and memory, of writing them and of reading an epoch.

    python scripts/benchmarks/input_at_scale.py [--texts N] [--images N] [--processes N] [--output FOLDER]

Generates N texts of 4 to 30 random words as one CSV file, and N random JPEGs of 32 to 64 pixels a side in
class folders; cuts them into shards by hash, and reads an epoch of training batches: texts tokenised and
grouped by length, images decoded and resized to 64 x 64 pixels. Peaks of resident memory are told at several
points of each stretch: flat means that memory does not grow with the rows. Each stretch runs in a process of
its own; of sharding, the peak of the largest of its processes counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from reporting import about_run, markdown_table, report, save

_POINTS = 4
_CLASSES = 10
_WORDS = 2000
_BATCH = 128
_SIDE = 64
_LOOK_SECONDS = 0.2


def word(number: int) -> str:
    letters = "etaoinshrdlu"
    return "".join(letters[number // 12**place % 12] for place in range(3)) + letters[number % 7]


def make_texts(path: Path, rows: int) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    words = np.array([word(number) for number in range(_WORDS)])
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            lengths = draw.integers(4, 31, count)
            drawn = words[draw.integers(0, _WORDS, int(lengths.sum()))].tolist()
            at = 0
            for row, length in enumerate(lengths.tolist(), start):
                file.write(f"{' '.join(drawn[at : at + length])},c{row % _CLASSES}\n")
                at += length


def make_images(folder: Path, rows: int) -> None:
    import numpy as np
    import tensorflow as tf

    draw = np.random.default_rng(0)
    for number in range(_CLASSES):
        (folder / f"c{number}").mkdir(parents=True)
    for row in range(rows):
        height, width = draw.integers(32, 65, 2).tolist()
        coarse = draw.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
        pixels = coarse.repeat(4, axis=0).repeat(4, axis=1)
        content = tf.io.encode_jpeg(pixels, quality=90).numpy()
        (folder / f"c{row % _CLASSES}" / f"{row:07d}.jpg").write_bytes(content)


class Peaks:
    """The resident memory of a process and those that it has started, looked at all the time."""

    def __init__(self, pid: int) -> None:
        self.pid, self.samples = pid, []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self.samples.append(max((megabytes(pid) for pid in family(self.pid)), default=0.0))

    def points(self) -> list[float]:
        """The highest of the whole until each quarter of the time."""
        cuts = [max(1, len(self.samples) * (point + 1) // _POINTS) for point in range(_POINTS)]
        return [max(self.samples[:cut], default=0.0) for cut in cuts]


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def megabytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def shard(kind: str, source: Path, folder: Path, processes: int) -> dict[str, Any]:
    from tfapp.data.shards.sharding import write_shards

    shards = write_shards(source, folder, kind=kind, split="hash", processes=processes)
    manifest = shards.manifest
    return {
        "rows": sum(manifest.rows_read.values()),
        "kept": sum(manifest.rows.values()),
        "files": len(manifest.shards),
        "megabytes": sum(each.bytes for each in manifest.shards) / 1e6,
    }


def read(kind: str, folder: Path) -> dict[str, Any]:
    from tfapp.data.image_decoding import ImageDecoder
    from tfapp.data.shards.manifest import load_shards
    from tfapp.data.shards.streaming import Stream, streamed_batches
    from tfapp.data.tokenizers import SPECIAL_TOKENS, WordPieceTokenizer

    shards = load_shards(folder)
    if kind == "text":
        vocabulary = list(dict.fromkeys([*SPECIAL_TOKENS, *(word(number) for number in range(_WORDS))]))
        stream = Stream(
            shards, WordPieceTokenizer(vocabulary, max_length=32), ("token_ids", "padding_mask"), _BATCH, 0
        )
    else:
        stream = Stream(shards, ImageDecoder(_SIDE), ("pixels",), _BATCH, 0)
    rows = shards.manifest.rows["train"]
    seen = 0
    started = time.perf_counter()
    for _, labels in streamed_batches(stream).take(-(-rows // _BATCH)):
        seen += int(labels.shape[0])
    assert seen == rows
    return {"rows": rows, "seconds": time.perf_counter() - started}


def stretch(*arguments: str) -> dict[str, Any]:
    """Runs a stretch in a process of its own, and tells its time and the memory it had at several points."""
    started = time.perf_counter()
    before = sum(os.times()[2:4])
    process = subprocess.Popen(
        [sys.executable, __file__, "--stretch", *arguments], stdout=subprocess.PIPE, text=True
    )
    with Peaks(process.pid) as peaks:
        output, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    taken = {"seconds": time.perf_counter() - started, "processor_seconds": sum(os.times()[2:4]) - before}
    return {**taken, **json.loads(output.splitlines()[-1]), "peak_megabytes": peaks.points()}


def run_stretch(arguments: list[str]) -> None:
    name, kind, *rest = arguments
    if name == "make":
        (make_texts if kind == "text" else make_images)(Path(rest[0]), int(rest[1]))
        answer: dict[str, Any] = {"rows": int(rest[1])}
    elif name == "shard":
        answer = shard(kind, Path(rest[0]), Path(rest[1]), int(rest[2]))
    else:
        answer = read(kind, Path(rest[0]))
    print(json.dumps(answer))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=2_000_000, help="default: 2,000,000; 0 for none")
    parser.add_argument("--images", type=int, default=200_000, help="default: 200,000; 0 for none")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that write shards")
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    parser.add_argument("--stretch", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stretch:
        run_stretch(options.stretch)
        return
    about = about_run()
    figures: dict[str, Any] = {}
    rows: list[list[str]] = []
    for kind, count in (("text", options.texts), ("image", options.images)):
        if not count:
            continue
        with tempfile.TemporaryDirectory(prefix="tfapp-scale-") as scratch:
            source, folder = (
                f"{scratch}/rows.csv" if kind == "text" else f"{scratch}/photos",
                f"{scratch}/out",
            )
            stretch("make", kind, source, str(count))
            for name, told in (
                ("shard", stretch("shard", kind, source, folder, str(options.processes))),
                ("read an epoch", stretch("read", kind, folder)),
            ):
                figures[f"{kind}, {name}"] = told
                peaks = " / ".join(f"{value:,.0f}" for value in told["peak_megabytes"])
                rate = told["rows"] / told["seconds"]
                rows.append(
                    [
                        f"{name}, {told['rows']:,} {kind}s",
                        f"{rate:,.0f}",
                        f"{told['seconds']:,.0f}",
                        f"{told['processor_seconds']:,.0f}",
                        peaks,
                    ]
                )
    header = ["stretch", "rows/s", "seconds", "processor s", "peak MiB until each quarter"]
    notes = [
        f"{options.processes} processes write; memory is that of the largest process, seen every "
        f"{_LOOK_SECONDS} s",
        f"reading: batches of {_BATCH}, texts of at most 32 tokens, images at {_SIDE} x {_SIDE} pixels; rows "
        "a second without the start of TensorFlow",
    ]
    report("Input at scale", about, markdown_table(header, rows), notes)
    if options.output:
        print(save(options.output, "input-at-scale", about, {"figures": figures}))


if __name__ == "__main__":
    main()
