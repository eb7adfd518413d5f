"""The one pass over all images before they are used: checksum, format, size, fault, thumbnail."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tfapp.data.image_duplicates import Thumbnails
from tfapp.data.image_store import FileImages, ImageStore
from tfapp.data.readers.image_table import ABSENT, DAMAGED, ImageTable
from tfapp.data.readers.table import Array, counted
from tfapp.data.report import ImageSummary, NearDuplicates
from tfapp.errors import DataError
from tfapp.progress import track

if TYPE_CHECKING:
    from tfapp.data.image_decoding import ImageDecoder

_BATCH_IMAGES = 64
_BATCH_BYTES = 64_000_000
_DECODED_SIDE = 128
_BYTES_PER_PIXEL = 8  # of an image of 16 bits with colour and alpha, without any compression
_SPARE_BYTES = 16_000_000
_LISTED = 20
_MOST_UNREADABLE = 0.5
_SIGNATURES = {
    "WebP": ((0, b"RIFF"), (8, b"WEBP")),
    "TIFF": ((0, b"II*\0"),),
    "TIFF (big-endian)": ((0, b"MM\0*"),),
    "HEIF or AVIF": ((4, b"ftyp"),),
    "JPEG 2000": ((4, b"jP  "),),
    "JPEG XL": ((0, b"\xff\x0a"),),
    "SVG": ((0, b"<svg"),),
    "PDF": ((0, b"%PDF"),),
}


@dataclass(frozen=True, eq=False)
class Examination:
    """What is known of the images of one source, row by row.

    Attributes:
        keys: Object array (rows,) of ``str``: sha256 of the bytes; empty where they cannot be used.
        faults: Object array (rows,): why an image cannot be used, else None.
        formats: Object array (rows,) of ``str``.
        sizes: int64 array (rows, 2): width and height in pixels, as they are looked at.
        thumbnails: int64 array (rows,): positions of their thumbnails, -1 where there is none.
    """

    keys: Array
    faults: Array
    formats: Array
    sizes: npt.NDArray[np.int64]
    thumbnails: npt.NDArray[np.int64]

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Boolean array (rows,): which images can be used."""
        return np.array([fault is None for fault in self.faults], bool)


def examine_images(images: ImageStore, thumbnails: Thumbnails, *, max_pixels: int) -> Examination:
    """Reads and decodes every image once, a few at a time.

    Args:
        images: The images.
        thumbnails: Takes the thumbnails.
        max_pixels: Most pixels that an image may have.

    Returns:
        What was found.
    """
    from tfapp.data.image_inspection import inspect_images

    rows = len(images)
    decoder = _decoder(max_pixels)
    keys, faults, formats = (np.full(rows, None, dtype=object) for _ in range(3))
    sizes, places = np.zeros((rows, 2), np.int64), np.full(rows, -1, np.int64)
    keys[:] = formats[:] = ""
    batches = _batches(images, faults, max_pixels)
    for batch in batches:
        contents = [content for _, content in batch]
        for (row, content), facts in zip(batch, inspect_images(decoder, contents), strict=True):
            formats[row] = facts.format
            sizes[row] = facts.width, facts.height
            faults[row] = _fault(facts.error, facts.width * facts.height, content, max_pixels)
            if facts.thumbnail is not None:
                keys[row] = hashlib.sha256(content).hexdigest()
                places[row] = thumbnails.add(facts.thumbnail)
    return Examination(keys, faults, formats, sizes, places)


def check_readable(found: Examination, source: ImageTable, split: str, *, refuse: bool) -> None:
    """Refuses a source of which most images, or some if so wanted, cannot be used.

    Args:
        found: What the examination found.
        source: The images.
        split: The split's name.
        refuse: Whether one such image is too many.

    Raises:
        DataError: If there are too many of them; the message lists the first 20.
    """
    bad = np.flatnonzero(~found.readable)
    mostly = len(bad) > _MOST_UNREADABLE * len(source)
    if len(bad) == 0 or not (refuse or mostly):
        return
    listed = "\n".join(f"  {source.table.place(row)}: {found.faults[row]}" for row in bad[:_LISTED].tolist())
    more = f"\n  ... and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
    cure = (
        "Are these the right files?"
        if mostly
        else "Repair, convert or remove them, or leave them out with unreadable='skip'."
    )
    raise DataError(
        f"{len(bad):,} of {counted(len(source), 'image')} of {split} cannot be used:\n{listed}{more}\n{cure}"
    )


def summarise(found: Iterable[Examination], near_duplicates: Sequence[NearDuplicates]) -> ImageSummary:
    """Summarises formats and sizes of the images that can be used.

    Args:
        found: What the examinations of all sources found.
        near_duplicates: The near duplicates among them.

    Returns:
        The summary.
    """
    parts = list(found)
    readable = np.concatenate([part.readable for part in parts])
    formats = np.concatenate([part.formats for part in parts])[readable]
    sizes = np.concatenate([part.sizes for part in parts])[readable]
    by_pixels = np.argsort(sizes.prod(axis=1), kind="stable")
    smallest, largest = (_pair(sizes[by_pixels[at]]) for at in (0, -1))
    names, counts = np.unique(formats.astype(str), return_counts=True)
    return ImageSummary(
        dict(zip(names.tolist(), counts.tolist(), strict=True)),
        smallest,
        _pair(np.median(sizes, axis=0)),
        largest,
        tuple(near_duplicates),
    )


def _pair(size: Array) -> tuple[int, int]:
    return int(size[0]), int(size[1])


@functools.lru_cache(maxsize=2)
def _decoder(max_pixels: int) -> ImageDecoder:
    """Keeps the decoder, whose graph takes a second to build."""
    from tfapp.data.image_decoding import ImageDecoder

    return ImageDecoder(_DECODED_SIDE, max_pixels=max_pixels)


def _batches(images: ImageStore, faults: Array, max_pixels: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yields rows with their bytes, and notes what cannot be read."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for row in track(range(len(images)), len(images), "checking images"):
        content = _read(images, row, faults, max_pixels)
        if content is None:
            continue
        batch.append((row, content))
        size += len(content)
        if len(batch) == _BATCH_IMAGES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(images: ImageStore, row: int, faults: Array, max_pixels: int) -> bytes | None:
    if isinstance(images, FileImages):
        length = int(images.lengths[row])
        if length == ABSENT:
            faults[row] = (
                "there is no such file" if images.files[images.file_index[row]] else "no path is given"
            )
            return None
        if length == DAMAGED:
            faults[row] = "its record is damaged: the checksum differs"
            return None
        if length > _BYTES_PER_PIXEL * max_pixels + _SPARE_BYTES:
            faults[row] = "the file is larger than any image of max_pixels"
            return None
    try:
        return images[row]
    except DataError as error:
        cause = error.__cause__
        faults[row] = f"it cannot be read ({cause.strerror if isinstance(cause, OSError) else 'it changes'})"
        return None


def _fault(error: str | None, pixels: int, content: bytes, max_pixels: int) -> str | None:
    """Words a fault so that equal faults of different images are worded alike."""
    if error is None:
        return None
    if pixels > max_pixels:
        return f"it has more than max_pixels = {max_pixels:,} pixels"
    name = _other_format(content)
    return f"its format, {name}, cannot be read in the graph; convert it to JPEG or PNG" if name else error


def _other_format(content: bytes) -> str | None:
    for name, parts in _SIGNATURES.items():
        if all(content[at : at + len(sign)] == sign for at, sign in parts):
            return name
    return None
