"""TFRecord shards of tf.train.Example: where each image lies in its shard, its label and its group.

A shard is a sequence of records: length (8 bytes), its checksum (4), data, checksum of the data (4). The
data is a protocol buffer. Both are read here without TensorFlow, because only the place of the image's
bytes is kept; but TensorFlow, which is quick, verifies all checksums of a shard first. Only where it finds
one wrong are they computed here, to tell which.

Reference: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfapp.data.image_store import FileImages
from tfapp.data.readers.example import Feature, find_features
from tfapp.data.readers.image_table import DAMAGED, ImageTable
from tfapp.data.readers.table import Columns, Table, check_columns, name_groups
from tfapp.errors import DataError

# The first are the names that stand for "not named".
_IMAGES = ("path", "image_bytes", "image/encoded", "image")
_LABELS = ("label", "image/class/text", "image/class/label")
_HEADER, _FOOTER = 12, 4
_GZIP = b"\x1f\x8b"


def read_tfrecords(paths: Sequence[Path], columns: Columns, *, origin: str) -> ImageTable:
    """Finds the images in TFRecord shards, reading each shard once and keeping places only.

    Args:
        paths: The shards.
        columns: The features of the images (bytes), labels (bytes or int64) and groups. Every Example must
            have those that are named. For ``path`` the first record decides among ``path``, ``image_bytes``,
            ``image/encoded`` and ``image``, for ``label`` among ``label``, ``image/class/text`` and
            ``image/class/label``.
        origin: What is read, in words.

    Returns:
        The table; the first record of a shard has number 0. A record whose data does not have the checksum
        that it was written with has no label and no group, and an image that is ``DAMAGED``.

    Raises:
        DataError: If a shard is cut off, compressed, damaged where it tells the length of a record, or a
            record lacks a feature.
    """
    rows: list[tuple[int, int, int, int]] = []
    labels: list[Any] = []
    groups: list[Any] = []
    files = tuple(str(path.absolute()) for path in paths)
    chosen: Columns | None = None
    whole = _are_whole(paths)
    for file, path in enumerate(paths):
        for number, (offset, data) in enumerate(_records(path, whole or _are_whole([path]))):
            if data is None:
                rows.append((file, offset, DAMAGED, number))
                labels.append(None)
                groups.append(None)
                continue
            place = f"{path}, record {number}"
            features = find_features(data, place)
            chosen = chosen or _choose(features, columns)
            check_columns(place, list(features), chosen, noun="feature")
            image = features[chosen.content]
            if image.kind != "bytes" or len(image.values) != 1:
                raise DataError(
                    f"{place}: {chosen.content!r} holds no single image file; name another with image=..."
                )
            start, end = image.values[0]
            rows.append((file, offset + start, end - start, number))
            labels.append(_single(features[chosen.label], data, chosen.label, place))
            groups.append(
                None if chosen.group is None else _single(features[chosen.group], data, chosen.group, place)
            )
    column = np.empty(len(labels), dtype=object)
    column[:] = labels
    places = np.array(rows, np.int64).reshape(-1, 4)
    index, numbers = places[:, 0].astype(np.int32), places[:, 3]
    sizes = np.array([path.stat().st_size for path in paths], np.int64)
    table = Table(
        np.full(len(rows), None, dtype=object),
        column,
        numbers,
        index,
        files,
        "record",
        None if columns.group is None else name_groups(groups),
    )
    return ImageTable(table, FileImages(files, sizes, index, places[:, 1], places[:, 2], numbers), origin)


def _choose(features: Mapping[str, Feature], columns: Columns) -> Columns:
    """Chooses the features of all records by those of the first."""
    content, label = (
        next((name for name in usual if name in features), named) if named == usual[0] else named
        for named, usual in ((columns.content, _IMAGES), (columns.label, _LABELS))
    )
    return Columns(content, label, columns.group, columns.keyword)


def _single(feature: Feature, data: bytes, name: str, place: str) -> Any:
    if not feature.values:
        return None
    if len(feature.values) > 1:
        raise DataError(f"{place}: {name!r} holds {len(feature.values)} values; every image needs one.")
    value = feature.values[0]
    return data[slice(*value)] if feature.kind == "bytes" else value


def _records(path: Path, whole: bool) -> Iterator[tuple[int, bytes | None]]:
    """Yields each record's place in the shard and its data, None where the data is damaged."""
    try:
        with path.open("rb") as shard:
            if shard.read(2) == _GZIP:
                raise DataError(
                    f"{path} is compressed; write TFRecords without compression, images are already."
                )
            shard.seek(0)
            size = path.stat().st_size
            number = offset = 0
            while offset < size:
                data, checksum = _record(shard, path, number, size - offset)
                intact = whole or _masked_crc32c(data) == checksum
                yield offset + _HEADER, data if intact else None
                offset += _HEADER + len(data) + _FOOTER
                number += 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _are_whole(paths: Sequence[Path]) -> bool:
    """Tells whether TensorFlow can read all records of shards, whose checksums it verifies."""
    import tensorflow as tf

    try:
        tf.data.TFRecordDataset([str(path) for path in paths]).reduce(0, lambda count, _: count + 1)
    except tf.errors.OpError:
        return False
    return True


def _record(shard: BinaryIO, path: Path, number: int, left: int) -> tuple[bytes, int]:
    """Reads a record: its data, and the checksum that it was written with."""
    header = shard.read(_HEADER)
    if len(header) == _HEADER:
        length, checksum = struct.unpack("<QI", header)
        if _masked_crc32c(header[:8]) != checksum:
            what = "is no TFRecord file" if number == 0 else f"is damaged at record {number}"
            raise DataError(f"{path} {what}; write or copy it again.")
        if _HEADER + length + _FOOTER <= left:
            data = shard.read(length)
            return data, struct.unpack("<I", shard.read(_FOOTER))[0]
    raise DataError(f"{path} ends in the middle of record {number}; write or copy it again.")


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _crc32c_table()
