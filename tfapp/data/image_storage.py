"""How saved image data names its images: Parquet rows that point into files, and copies of arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tfapp.data.image_store import ArrayImages, FileImages, ImageStore
from tfapp.errors import DataError

if TYPE_CHECKING:
    from tfapp.data.image import ImageSplit

COPIES = ".images"
_IN_COPIES = ""


def image_table(split: ImageSplit) -> Any:
    """Makes the table of a split: where each image lies, its label and its checksum.

    Args:
        split: The split.

    Returns:
        An Arrow table; images of an array lie in the file that ``image_copies`` fills.
    """
    store = split.images
    if isinstance(store, FileImages):
        used, index = np.unique(store.file_index, return_inverse=True)
        names = pa.array([store.files[file] for file in used.tolist()], pa.string())
        files = pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), names)
        sizes = store.file_bytes[store.file_index]
        offsets, lengths, numbers = store.offsets, store.lengths, store.numbers
    else:
        lengths = np.fromiter((len(store[row]) for row in range(len(store))), np.int64, len(store))
        offsets = np.cumsum(lengths) - lengths
        numbers = np.arange(len(store), dtype=np.int64)
        sizes = np.full(len(store), lengths.sum(), np.int64)
        files = pa.array([_IN_COPIES] * len(store), pa.string())
    return pa.table(
        {
            "file": files,
            "file_bytes": pa.array(sizes, pa.int64()),
            "offset": pa.array(offsets, pa.int64()),
            "length": pa.array(lengths, pa.int64()),
            "number": pa.array(numbers, pa.int64()),
            "label": pa.array(split.labels, pa.int32()),
            "sha256": pa.array(split.digests, pa.string()),
        }
    )


def image_copies(split: ImageSplit) -> Iterator[bytes] | None:
    """Gives the bytes that must be kept beside the table, because no file holds them.

    Args:
        split: The split.

    Returns:
        The image files of an array one after another, or None when the images are files.
    """
    store: ImageStore = split.images
    return (store[row] for row in range(len(store))) if isinstance(store, ArrayImages) else None


def read_images(table: Any, path: Path) -> tuple[FileImages, tuple[str, ...]]:
    """Makes the store of a saved split, after checking that its files are still there.

    Args:
        table: What ``image_table`` made.
        path: The file that it was read from; copies lie beside it.

    Returns:
        The store, and the checksums of the images.

    Raises:
        DataError: If a file is gone or has another size.
    """
    encoded = table.column("file").combine_chunks().dictionary_encode()
    copies = str(path.with_suffix(COPIES).absolute())
    files = [copies if name == _IN_COPIES else name for name in encoded.dictionary.to_pylist()]
    index = np.asarray(encoded.indices, np.int32)
    sizes = np.zeros(len(files), np.int64)
    sizes[index] = np.asarray(table.column("file_bytes"))
    for file, size in zip(files, sizes.tolist(), strict=True):
        _check_file(file, size)
    parts = [np.asarray(table.column(name), np.int64) for name in ("offset", "length", "number")]
    return FileImages(tuple(files), sizes, index, *parts), tuple(table.column("sha256").to_pylist())


def _check_file(file: str, size: int) -> None:
    cure = "put it back as it was, or prepare the data again"
    try:
        found = os.stat(file).st_size
    except OSError as error:
        raise DataError(f"the image file {file} cannot be found: {error.strerror}; {cure}.") from error
    if found != size:
        raise DataError(f"the image file {file} has {found:,} bytes and had {size:,}; {cure}.")
