"""The first pass of sharding: what each part of the source holds, sorted into the buckets of the shards.

The content of a row decides everything about it: a keyed hash gives its split, where none is given, its
bucket and its place in the bucket. Rows with equal content meet in one bucket, whatever part they come from,
so that duplicates and leaks are found with no more than a bucket in memory; and the order of the shards is a
shuffled one, whatever the order of the source.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfapp.data.cleaning import CleanRows, Unusable, check_writable, text_keys
from tfapp.data.image_store import FileImages, ImageStore
from tfapp.data.labels import name_labels
from tfapp.data.readers.table import Array, Table
from tfapp.data.report import MOST_NAMED, UNREADABLE
from tfapp.data.shards.parts import ImagePart, Part
from tfapp.data.split_data import SPLITS
from tfapp.disk import replace_file, sync

_DIGEST = 16
_SCALE = 2.0**64
SCHEMA = pa.schema(
    [
        ("digest", pa.binary(_DIGEST)),
        ("split", pa.int8()),
        ("source", pa.int8()),
        ("label", pa.string()),
        ("place", pa.string()),
        ("content", pa.large_binary()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""What is kept of a row: its content, or for an image in a file where it lies."""


@dataclass(frozen=True)
class Plan:
    """What every process knows of the shards that are written.

    Attributes:
        kind: ``"text"`` or ``"image"``.
        seed: Decides splits and order.
        buckets: Into how many shards each split is cut.
        fractions: Share of each split that is to be drawn.
        refuse: Whether an image that cannot be used is an error; such images are left out otherwise.
        max_pixels: Most pixels that an image may have.
        directory: Folder of the shards.
    """

    kind: str
    seed: int
    buckets: int
    fractions: Mapping[str, float]
    refuse: bool
    max_pixels: int
    directory: Path

    @property
    def work(self) -> Path:
        """Folder of what is removed at the end."""
        return self.directory / ".work"

    def spill(self, number: int) -> Path:
        """The file of a part's rows."""
        return self.work / f"part-{number:06d}.arrow"


def spill_part(plan: Plan, number: int, part: Part) -> None:
    """Sorts the rows of a part into buckets, unless an earlier call has done so.

    Args:
        plan: What is written.
        number: Number of the part.
        part: The part.

    Raises:
        DataError: If a row cannot be used.
        OSError: If the disk is full.
    """
    path = plan.spill(number)
    record = path.with_suffix(".json")
    if record.exists():
        return
    table = part.read()
    labels = name_labels(table)
    keys, unusable, images = _examined(plan, part, table)
    rows, dropped = _usable(table, keys, labels, part.source, unusable)
    digests = _digests(rows.keys, plan.seed)
    buckets = (digests[:, 1] % np.uint64(plan.buckets)).astype(np.int64)
    order = np.argsort(buckets, kind="stable")
    _write(plan, path, _records(plan, part, rows, digests, order), buckets[order])
    about = {
        "source": part.source,
        "rows": len(table),
        "labels": sorted(set(rows.names.tolist())),
        "dropped": dropped,
        "images": images,
    }
    replace_file(record, json.dumps(about))


def _examined(
    plan: Plan, part: Part, table: Table
) -> tuple[Array, list[Unusable], dict[str, list[Any]] | None]:
    """What makes rows equal, which cannot be used, and of images formats and sizes."""
    if not isinstance(part, ImagePart):
        keys, unusable = text_keys(table)
        return keys, unusable, None
    if part.checked is not None:
        return np.array(part.checked, dtype=object), [], None

    from tfapp.data.image_duplicates import Thumbnails
    from tfapp.data.image_examination import check_readable, examine_images
    from tfapp.data.readers.image_table import ImageTable

    with Thumbnails() as thumbnails:
        found = examine_images(part.images, thumbnails, max_pixels=plan.max_pixels)
    if plan.refuse:
        check_readable(found, ImageTable(table, part.images, ""), part.source, refuse=True)
    reasons = sorted({fault for fault in found.faults if fault is not None})
    unusable = [Unusable(f"{UNREADABLE}{reason}", found.faults == reason) for reason in reasons]
    usable = found.readable
    sizes = found.sizes[usable]
    about: dict[str, list[Any]] = {
        "formats": list(Counter(found.formats[usable].tolist()).items()),
        "sizes": [list(size) for size in sorted(Counter(map(tuple, sizes.tolist())).items())],
    }
    return found.keys, unusable, about


def _usable(
    table: Table, keys: Array, labels: Array, source: str, unusable: list[Unusable]
) -> tuple[CleanRows, list[dict[str, Any]]]:
    """The rows that have content and a label, and what was left out."""
    left_out = np.any([np.zeros(len(table), bool), *(entry.rows for entry in unusable)], axis=0)
    unlabelled = np.fromiter((name is None for name in labels), bool, len(labels)) & ~left_out
    dropped = []
    for entry in (*unusable, Unusable("missing label", unlabelled)):
        at = np.flatnonzero(entry.rows)
        if len(at):
            places = list(table.places(at.tolist(), limit=MOST_NAMED))
            dropped.append({"split": source, "reason": entry.reason, "rows": len(at), "examples": places})
    positions = np.flatnonzero(~(left_out | unlabelled)).astype(np.int64)
    rows = CleanRows(table, positions, keys[positions], labels[positions])
    if len(rows):
        check_writable(rows)
    return rows, dropped


def _digests(keys: Array, seed: int) -> npt.NDArray[np.uint64]:
    """Two numbers for each key, from the seed and the key alone, ``(rows, 2)``."""
    secret = hashlib.sha256(str(seed).encode()).digest()
    blake = hashlib.blake2b
    joined = b"".join(blake(key.encode(), digest_size=_DIGEST, key=secret).digest() for key in keys)
    return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)


def _records(
    plan: Plan, part: Part, rows: CleanRows, digests: npt.NDArray[np.uint64], order: npt.NDArray[np.int64]
) -> pa.Table:
    """The rows in the order of their buckets."""
    lots = digests[:, 0] / _SCALE
    if part.drawn is None:
        splits = np.full(len(rows), SPLITS.index("train"), np.int8)
        border = 0.0
        for split, fraction in plan.fractions.items():
            splits[(lots >= border) & (lots < border + fraction)] = SPLITS.index(split)
            border += fraction
    else:
        splits = np.full(len(rows), SPLITS.index(part.drawn), np.int8)
    table, positions = rows.table, rows.positions[order]
    content: list[bytes | None] = [None] * len(order)
    files: list[str | None] = [None] * len(order)
    offsets = lengths = np.zeros(len(order), np.int64)
    if not isinstance(part, ImagePart):
        content = [text.encode() for text in table.texts[positions].tolist()]
    elif isinstance(part.images, FileImages):
        images = part.images.take(positions)
        files = [images.files[file] for file in images.file_index.tolist()]
        offsets, lengths = images.offsets, images.lengths
    else:
        content = _bytes(part.images, positions)
    return pa.table(
        {
            "digest": pa.array([each.tobytes() for each in digests[order].astype(">u8")], pa.binary(_DIGEST)),
            "split": splits[order],
            "source": np.full(len(order), SPLITS.index(part.source), np.int8),
            "label": pa.array(rows.names[order].tolist(), pa.string()),
            "place": pa.array([table.place(row) for row in positions.tolist()], pa.string()),
            "content": pa.array(content, pa.large_binary()),
            "file": pa.array(files, pa.string()),
            "offset": offsets,
            "length": lengths,
        },
        schema=SCHEMA,
    )


def _bytes(images: ImageStore, positions: npt.NDArray[np.int64]) -> list[bytes | None]:
    return [images[row] for row in positions.tolist()]


def _write(plan: Plan, path: Path, records: pa.Table, buckets: npt.NDArray[np.int64]) -> None:
    """Writes one batch for each bucket, so that one can be read by itself."""
    borders = np.searchsorted(buckets, np.arange(plan.buckets + 1))
    partial = path.with_suffix(f".{os.getpid()}")
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            some = records.slice(start, stop - start).combine_chunks()
            batches = some.to_batches()
            writer.write_batch(batches[0] if batches else _EMPTY)
    sync(partial)
    os.replace(partial, path)


_EMPTY = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in SCHEMA], schema=SCHEMA)
