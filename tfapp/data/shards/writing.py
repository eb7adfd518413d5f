"""The second pass of sharding: the rows of a bucket from all parts become one shard of each split."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfapp.data.report import MOST_NAMED
from tfapp.data.shards.manifest import FEATURES, Shard, fault, file_sha256
from tfapp.data.shards.spilling import SCHEMA, Plan
from tfapp.data.split_data import SPLITS
from tfapp.disk import replace_file, sync
from tfapp.errors import DataError

_LEAKS = {"test": ("validation", "train"), "validation": ("train",), "train": ()}
"""Which splits lose a row that stands in this one, the first that has it."""
_HELD_OUT_FIRST = ("test", "validation", "train")


def bucket_record(plan: Plan, bucket: int) -> Path:
    """The file that says which shards of a bucket are finished.

    Args:
        plan: What is written.
        bucket: Number of the bucket.

    Returns:
        Its path.
    """
    return plan.work / f"bucket-{bucket:05d}.json"


def finished_bucket(plan: Plan, bucket: int) -> dict[str, Any] | None:
    """Reads what an earlier call has written of a bucket.

    Args:
        plan: What is written.
        bucket: Number of the bucket.

    Returns:
        What `write_bucket` recorded; None where there is nothing, or a shard is not what was written.
    """
    try:
        record: dict[str, Any] = json.loads(bucket_record(plan, bucket).read_text(encoding="utf-8"))
        shards = [Shard(**each) for each in record["shards"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if any(fault(plan.directory, shard, verify=True) for shard in shards) else record


def write_bucket(plan: Plan, bucket: int, parts: int, class_of: Mapping[str, str]) -> None:
    """Writes the shards of a bucket, and then what they are.

    Args:
        plan: What is written.
        bucket: Number of the bucket.
        parts: How many parts there are.
        class_of: The class of each label.

    Raises:
        DataError: If an image is no longer what it was.
        OSError: If the disk is full.
    """
    rows = _rows(plan, bucket, parts)
    splits, sources = np.asarray(rows["split"]), np.asarray(rows["source"])
    names = [class_of[label] for label in rows["label"].to_pylist()]
    places = rows["place"]
    kept, dropped = _without_copies(rows["digest"], splits, sources, names)
    shards, counts = [], {}
    for number, split in enumerate(SPLITS):
        at = np.flatnonzero(kept & (splits == number))
        if not len(at):
            continue
        name = f"{split}-{bucket:05d}-of-{plan.buckets:05d}.tfrecord"
        contents = _contents(rows, at)
        shards.append(_write_shard(plan, name, split, contents, [names[row] for row in at.tolist()]))
        counts[split] = dict(sorted(Counter(names[row] for row in at.tolist()).items()))
    left_out = [
        {
            "split": split,
            "reason": reason,
            "rows": len(at),
            "examples": [places[row].as_py() for row in at[:MOST_NAMED]],
        }
        for (split, reason), at in dropped.items()
    ]
    record = {
        "shards": [shard.model_dump() for shard in shards],
        "class_counts": counts,
        "dropped": left_out,
    }
    replace_file(bucket_record(plan, bucket), json.dumps(record))


def _rows(plan: Plan, bucket: int, parts: int) -> dict[str, Any]:
    """The rows of a bucket, ordered by their digests and then as they were read."""
    batches = []
    for number in range(parts):
        # No memory map: its pages would count as memory until all of the file had been read.
        with pa.OSFile(str(plan.spill(number)), "rb") as file:
            batches.append(pa.ipc.open_file(file).get_batch(bucket))
    table = pa.Table.from_batches(batches, schema=SCHEMA)
    joined = b"".join(table["digest"].to_pylist())
    digests = np.frombuffer(joined, ">u8").reshape(-1, 2)
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    table = table.take(pa.array(order))
    columns: dict[str, Any] = {name: table[name] for name in table.column_names}
    return {**columns, "digest": digests[order]}


def _without_copies(
    digests: npt.NDArray[Any], splits: npt.NDArray[Any], sources: npt.NDArray[Any], names: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], dict[tuple[str, str], list[int]]]:
    """Keeps of rows with equal content the first, in one split; none where one source has several labels."""
    kept = np.ones(len(digests), bool)
    dropped: dict[tuple[str, str], list[int]] = {}

    def drop(row: int, reason: str) -> None:
        kept[row] = False
        dropped.setdefault((SPLITS[int(sources[row])], reason), []).append(row)

    for group in _equal(digests):
        firsts: dict[str, int] = {}
        for source in dict.fromkeys(sources[group].tolist()):
            own = [row for row in group if sources[row] == source]
            if len({names[row] for row in own}) > 1:
                for row in own:
                    drop(row, "conflicting labels")
                continue
            firsts[SPLITS[int(splits[own[0]])]] = own[0]
            for row in own[1:]:
                drop(row, "duplicate")
        held_out = next((split for split in _HELD_OUT_FIRST if split in firsts), None)
        for split in () if held_out is None else _LEAKS[held_out]:
            if split in firsts:
                drop(firsts[split], f"also in {held_out}")
    return kept, dropped


def _equal(digests: npt.NDArray[Any]) -> Iterator[list[int]]:
    """Groups of two and more rows with one digest."""
    borders = np.flatnonzero(np.any(digests[1:] != digests[:-1], axis=1)) + 1
    starts = np.concatenate([[0], borders])
    stops = np.concatenate([borders, [len(digests)]])
    for at in np.flatnonzero(stops - starts > 1).tolist():
        yield list(range(int(starts[at]), int(stops[at])))


def _contents(rows: Mapping[str, Any], at: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """The texts, or the bytes of images, of some rows."""
    chosen = pa.array(at)
    columns = [rows[name].take(chosen) for name in ("content", "file", "offset", "length", "place")]
    for content, file, offset, length, place in zip(*columns, strict=True):
        if file.is_valid:
            yield _image(file.as_py(), offset.as_py(), length.as_py(), place.as_py())
        else:
            yield content.as_py()


def _image(path: str, offset: int, length: int, place: str) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(length)
    except OSError as error:
        raise DataError(
            f"{place} cannot be read any more: {error.strerror or error}. Put it back and run the same again."
        ) from error
    if len(content) != length:
        raise DataError(f"{place} is shorter than when it was looked at; run the same again.")
    return content


def _write_shard(
    plan: Plan, name: str, split: Any, contents: Iterator[bytes], labels: Sequence[str]
) -> Shard:
    """Writes one shard under another name, and gives it its own when all of it has reached the disk."""
    import tensorflow as tf

    partial = plan.work / f"{name}.{os.getpid()}"
    feature = FEATURES[plan.kind]
    try:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for content, label in zip(contents, labels, strict=True):
                example = tf.train.Example()
                example.features.feature[feature].bytes_list.value.append(content)
                example.features.feature["label"].bytes_list.value.append(label.encode())
                writer.write(example.SerializeToString(deterministic=True))
        sync(partial)
        shard = Shard(
            file=name,
            split=split,
            rows=len(labels),
            bytes=partial.stat().st_size,
            sha256=file_sha256(partial),
        )
        os.replace(partial, plan.directory / name)
        sync(plan.directory)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return shard
