"""Outputs of a frozen backbone on disk, computed once and trained on many times."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.bucketing import FeatureRows, Rows, round_up
from tfapp.errors import OutputError

IN_MEMORY_MEGABYTES = 64.0
"""Larger caches are read from disk, batch by batch, so that memory does not grow with the data."""

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class FeatureShape:
    """How large a cache will be.

    Attributes:
        items: Number of arrays: one a row, or one a token.
        shape: Shape of each of them, such as ``(hidden,)``, or ``(height, width, channels)`` for images.
        bfloat16: Whether a number takes 2 bytes instead of 4.
    """

    items: int
    shape: tuple[int, ...]
    bfloat16: bool

    @property
    def megabytes(self) -> float:
        """Size on disk in MB (10^6 bytes)."""
        return self.items * math.prod(self.shape) * (2 if self.bfloat16 else 4) / 1e6


def cached_features(
    path: Path,
    key: str,
    shape: FeatureShape,
    row_splits: npt.NDArray[np.int64] | None,
    compute: Callable[[], Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]],
    *,
    name: str,
    pad_to: int = 1,
) -> tuple[Rows, bool]:
    """Gives features from ``path``, after computing and writing them where they are not there yet.

    Args:
        path: Folder of this cache.
        key: What the features depend on; a cache with another key is replaced.
        shape: Size of the cache.
        row_splits: For token vectors, where each row begins, int64 ``(rows + 1,)``; None for one array a row.
        compute: Gives pairs of row numbers ``(batch,)`` and features, ``(batch, *shape)`` or, for token
            vectors, ``(batch, length, hidden)`` padded at the end.
        name: What the upper model calls its input.
        pad_to: Widths of token vectors are rounded up to a multiple of this.

    Returns:
        The rows, and whether they came from the cache.

    Raises:
        OutputError: When the cache cannot be written.
    """
    dtype = _BFLOAT16 if shape.bfloat16 else np.dtype(np.float32)
    meta = {"key": key, "items": shape.items, "shape": list(shape.shape), "dtype": dtype.name}
    hit = _stored(path) == meta
    if not hit:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        except OSError as error:
            raise OutputError(f"cannot write the feature cache {path}: {error.strerror}") from error
        try:
            _write(staging, meta, dtype, row_splits, compute)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(staging, path)
        except OSError as error:
            raise OutputError(
                f"cannot write the feature cache {path} of {shape.megabytes:.0f} MB: {error.strerror}; free "
                "some space, or lower feature_cache_megabytes to train without a cache."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    file = path / "features.bin"
    if shape.megabytes > IN_MEMORY_MEGABYTES:
        return StoredRows(file, dtype, shape, row_splits, name=name, pad_to=pad_to), hit
    raw = np.fromfile(file, dtype=dtype).reshape(shape.items, *shape.shape)
    return FeatureRows({name: raw}, row_splits, pad_to=pad_to), hit


class StoredRows:
    """Features in a file as rows, read when a batch needs them.

    Args:
        file: The numbers of all items, one after another.
        dtype: Their type.
        shape: How many there are, of what shape.
        row_splits: For token vectors, where each row begins, int64 ``(rows + 1,)``; None for one item a row.
        name: What the upper model calls its input.
        pad_to: Widths of token vectors are rounded up to a multiple of this.

    Raises:
        OSError: When the file cannot be opened.
    """

    def __init__(
        self,
        file: Path,
        dtype: np.dtype[Any],
        shape: FeatureShape,
        row_splits: npt.NDArray[np.int64] | None,
        *,
        name: str,
        pad_to: int = 1,
    ) -> None:
        splits = np.arange(shape.items + 1) if row_splits is None else row_splits
        self.lengths = np.diff(splits).astype(np.int32)
        self._by_token, self._pad_to = row_splits is not None, 1 if row_splits is None else pad_to
        self._name = name
        self._file, self._dtype, self._item = file.open("rb", buffering=0), dtype, shape.shape
        self._splits = tf.constant(splits, tf.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads float32 features ``(batch, ...)``; with ``(batch, length, hidden)`` goes a mask."""
        starts = tf.gather(self._splits, indices)
        lengths = tf.gather(self._splits, indices + 1) - starts
        width = round_up(tf.reduce_max(lengths), self._pad_to)
        values = tf.numpy_function(self._read, [starts, lengths, width], tf.float32, stateful=False)
        values = tf.ensure_shape(values, (None, None, *self._item))
        if self._by_token:
            return {self._name: values, "padding_mask": tf.sequence_mask(lengths, width, tf.int32)}
        return {self._name: values[:, 0]}

    def _read(
        self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], width: int
    ) -> npt.NDArray[np.float32]:
        values = np.zeros((len(starts), width, *self._item), np.float32)
        size = math.prod(self._item) * self._dtype.itemsize
        for row, start, length in zip(values, starts.tolist(), lengths.tolist(), strict=True):
            stored = os.pread(self._file.fileno(), length * size, start * size)
            row[:length] = np.frombuffer(stored, self._dtype).reshape(length, *self._item)
        return values


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        expected = meta["items"] * math.prod(meta["shape"]) * np.dtype(meta["dtype"]).itemsize
        return meta if (path / "features.bin").stat().st_size == expected else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    staging: Path,
    meta: dict[str, Any],
    dtype: np.dtype[Any],
    row_splits: npt.NDArray[np.int64] | None,
    compute: Callable[[], Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]],
) -> None:
    size = math.prod(meta["shape"]) * dtype.itemsize
    # Not a memory map: on a full disk that ends the process instead of raising an error.
    with (staging / "features.bin").open("wb") as file:
        file.truncate(meta["items"] * size)
        for rows, values in compute():
            starts = rows if row_splits is None else row_splits[rows]
            for number, (row, start) in enumerate(zip(rows.tolist(), starts.tolist(), strict=True)):
                length = 1 if row_splits is None else int(row_splits[row + 1]) - start
                kept = values[number] if row_splits is None else values[number, :length]
                file.seek(start * size)
                file.write(kept.astype(dtype).tobytes())
        file.flush()
        os.fsync(file.fileno())
    (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
