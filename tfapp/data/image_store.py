"""Encoded images that stay where they are until one is asked for: files, ranges of files, arrays."""

from __future__ import annotations

import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tfapp.errors import DataError

Positions = Sequence[int] | npt.NDArray[Any] | slice
_WITHOUT_COMPRESSION = 0
_BMP_HEADERS = 54


class ImageStore(Sequence[bytes]):
    """Images as the bytes of their files; ``store[3]`` reads one, and nothing is kept."""

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> ImageStore: ...

    def __getitem__(self, index: int | slice) -> bytes | ImageStore:
        """Reads one image, or chooses some.

        Args:
            index: A position from 0, or a slice.

        Returns:
            The bytes of an image file (JPEG, PNG, BMP or GIF); a store for a slice.

        Raises:
            DataError: If a file is gone, or is no longer what it was.
        """
        if isinstance(index, slice):
            return self.take(index)
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"image {index} of {len(self):,}")
        return self._read(position)

    @abstractmethod
    def name(self, index: int) -> str:
        """Names an image for people.

        Args:
            index: Its position from 0.

        Returns:
            The file, and the number of the image in it where it holds several.
        """

    @property
    @abstractmethod
    def total_bytes(self) -> int:
        """Bytes of all images; none is read for it, but one of an array."""

    @abstractmethod
    def take(self, indices: Positions) -> ImageStore:
        """Chooses some images.

        Args:
            indices: Their positions from 0, a boolean mask (rows,) or a slice.

        Returns:
            A store of these images in this order; no image is read.
        """

    @abstractmethod
    def _read(self, position: int) -> bytes:
        """Reads the image at a position that exists."""


@dataclass(frozen=True, eq=False)
class FileImages(ImageStore):
    """Images in files: whole files, or ranges of larger ones such as TFRecord shards.

    Attributes:
        files: The files' absolute paths, each once.
        file_bytes: int64 array (files,): their sizes when they were prepared.
        file_index: int32 array (rows,): positions in ``files``.
        offsets: int64 array (rows,): where an image begins in its file, in bytes.
        lengths: int64 array (rows,): its length in bytes.
        numbers: int64 array (rows,): its number in its file from 0, or -1 where it is the whole file.
    """

    files: tuple[str, ...]
    file_bytes: npt.NDArray[np.int64]
    file_index: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.file_index)

    def __repr__(self) -> str:
        return f"FileImages({len(self):,} images in {len(self.files):,} files)"

    def name(self, index: int) -> str:
        """Names an image by its file."""
        file, number = self.files[self.file_index[index]], int(self.numbers[index])
        return file if number < 0 else f"{file}, record {number}"

    @property
    def total_bytes(self) -> int:
        """Bytes of all images, as they were prepared."""
        return int(self.lengths.sum())

    def take(self, indices: Positions) -> FileImages:
        """Chooses some images."""
        kept = indices if isinstance(indices, slice) else np.asarray(indices)
        places = (self.offsets[kept], self.lengths[kept], self.numbers[kept])
        return FileImages(self.files, self.file_bytes, self.file_index[kept], *places)

    def _read(self, position: int) -> bytes:
        file, length = int(self.file_index[position]), int(self.lengths[position])
        path = self.files[file]
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                same = os.fstat(handle).st_size == self.file_bytes[file]
                contents = _read_range(handle, int(self.offsets[position]), length)
            finally:
                os.close(handle)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read any more: {error.strerror or error}. Put it back, or prepare the "
                "data again."
            ) from error
        if not same or len(contents) != length:
            raise DataError(f"{path} has another size than when it was prepared; prepare the data again.")
        return contents


@dataclass(frozen=True, eq=False)
class ArrayImages(ImageStore):
    """Images of one array, which become image files on the spot: BMP without alpha of 8 bits, else PNG.

    Attributes:
        pixels: uint8 or uint16 array (n, height, width) or (n, height, width, channels), where channels are 1
            (grey), 3 (red, green, blue) or 4 (with alpha). It is not copied: do not change it.
        positions: int64 array (rows,): positions in ``pixels``.
        source: What the array is called in messages.
    """

    pixels: npt.NDArray[Any]
    positions: npt.NDArray[np.int64]
    source: str = "images"

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"ArrayImages({len(self):,} images of shape {self.pixels.shape[1:]}, {self.pixels.dtype})"

    def name(self, index: int) -> str:
        """Names an image by its position in the array."""
        return f"{self.source}, index {int(self.positions[index])}"

    @property
    def total_bytes(self) -> int:
        """Bytes of all images: without compression, every one is as long as the first."""
        return len(self) * len(self._read(0)) if len(self) else 0

    def take(self, indices: Positions) -> ArrayImages:
        """Chooses some images."""
        kept = indices if isinstance(indices, slice) else np.asarray(indices)
        return ArrayImages(self.pixels, self.positions[kept], self.source)

    def _read(self, position: int) -> bytes:
        image = self.pixels[self.positions[position]]
        pixels = image[..., np.newaxis] if image.ndim == 2 else image
        if pixels.dtype == np.uint8 and pixels.shape[-1] != 4:
            return bmp_file(pixels)
        return png_file(pixels)


def file_images(paths: Sequence[str], file_bytes: npt.NDArray[np.int64]) -> FileImages:
    """Makes a store of whole files.

    Args:
        paths: Absolute paths (rows,), each once.
        file_bytes: int64 array (rows,): their sizes.

    Returns:
        The store.
    """
    rows = len(paths)
    return FileImages(
        tuple(paths),
        file_bytes,
        np.arange(rows, dtype=np.int32),
        np.zeros(rows, np.int64),
        file_bytes,
        np.full(rows, -1, np.int64),
    )


def bmp_file(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Writes pixels as a BMP file of 24 bits a pixel.

    Args:
        pixels: uint8 array (height, width, channels) of 1 (grey) or 3 channels (red, green, blue).

    Returns:
        The file.
    """
    height, width = pixels.shape[:2]
    stride = (3 * width + 3) // 4 * 4
    rows = np.zeros((height, stride), np.uint8)
    rows[:, : 3 * width].reshape(height, width, 3)[...] = pixels[::-1, :, ::-1]
    size = _BMP_HEADERS + rows.size
    file_header = struct.pack("<2sIHHI", b"BM", size, 0, 0, _BMP_HEADERS)
    image_header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, rows.size, 2835, 2835, 0, 0)
    return file_header + image_header + rows.tobytes()


def png_file(pixels: npt.NDArray[Any], *, compression: int = _WITHOUT_COMPRESSION) -> bytes:
    """Writes pixels as a PNG file, by default without compression: quick to write and to read.

    Args:
        pixels: uint8 or uint16 array (height, width, channels) of 1, 3 or 4 channels.
        compression: How hard zlib tries, 0 (not at all) to 9.

    Returns:
        The file.
    """
    height, width, channels = pixels.shape
    row_bytes = width * channels * pixels.dtype.itemsize
    rows = np.zeros((height, 1 + row_bytes), np.uint8)
    big_endian = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
    rows[:, 1:] = big_endian.reshape(height, -1).view(np.uint8)
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, colour, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), compression)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _read_range(handle: int, offset: int, length: int) -> bytes:
    contents = os.pread(handle, length, offset)
    while len(contents) < length:  # the system may read less than it is asked for
        more = os.pread(handle, length - len(contents), offset + len(contents))
        if not more:
            break
        contents += more
    return contents
