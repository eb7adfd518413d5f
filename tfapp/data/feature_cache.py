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

from tfapp.data.bucketing import FeatureRows
from tfapp.errors import OutputError

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
) -> tuple[FeatureRows, bool]:
    """Reads features from ``path``, after computing and writing them where they are not there yet.

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
            _write(staging, meta, dtype, shape, row_splits, compute)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(staging, path)
        except OSError as error:
            raise OutputError(
                f"cannot write the feature cache {path} of {shape.megabytes:.0f} MB: {error.strerror}; free "
                "some space, or lower feature_cache_megabytes to train without a cache."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    raw = np.fromfile(path / "features.bin", dtype=dtype).reshape(shape.items, *shape.shape)
    return FeatureRows({name: raw}, row_splits, pad_to=pad_to), hit


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
    shape: FeatureShape,
    row_splits: npt.NDArray[np.int64] | None,
    compute: Callable[[], Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]],
) -> None:
    # Not a memory map: on a full disk that ends the process instead of raising an error.
    features = np.empty((shape.items, *shape.shape), dtype)
    for rows, values in compute():
        if row_splits is None:
            features[rows] = values.astype(dtype)
            continue
        lengths = row_splits[rows + 1] - row_splits[rows]
        mask = np.arange(values.shape[1]) < lengths[:, np.newaxis]
        target = (row_splits[rows][:, np.newaxis] + np.arange(values.shape[1]))[mask]
        features[target] = values[mask].astype(dtype)
    with (staging / "features.bin").open("wb") as file:
        file.write(features.view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    (staging / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
