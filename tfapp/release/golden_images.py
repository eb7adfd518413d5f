"""Images of golden vectors: blocks and gradients of colours, drawn at random."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.image_headers import FORMATS
from tfapp.data.image_store import bmp_file
from tfapp.release.probe import Probe

_SMALLEST = 12
_SCALES = (0.1, 0.3, 1.0, 1.6, 2.4)
# Of a GIF's palette of 2^7 colours: the steps of red, green and blue, and the code that forgets all others.
_GIF_BITS, _GIF_LEVELS = 7, 5
_GIF_CLEAR = 1 << _GIF_BITS


def make_golden_images(image_size: tuple[int, int], *, count: int = 50, seed: int = 0) -> list[bytes]:
    """Draws images of all shapes, from a tenth to some times the size of a model's pixels.

    They are PNG in colour, grey and 16 bits, JPEG, also turned by its EXIF entry and large enough to be
    decoded at a fraction of its size, BMP and GIF of two frames, of which the first counts: every way that
    a decoder goes. Every fifth has the size of the model's pixels, so that a device with another way of
    resizing can be compared, too.

    Args:
        image_size: Height and width of the model's pixels.
        count: How many.
        seed: Seed of the draw.

    Returns:
        ``count`` image files; of the default size for 224 x 224 pixels 3 MB together.
    """
    generator = np.random.default_rng(seed)
    return [_draw(generator, number, image_size) for number in range(count)]


def _draw(generator: np.random.Generator, number: int, image_size: tuple[int, int]) -> bytes:
    scale = _SCALES[number % len(_SCALES)]
    sides = [max(_SMALLEST, round(side * scale * generator.uniform(0.8, 1.2))) for side in image_size]
    sides = list(image_size) if scale == 1 else sides
    blocks = bool((number + number // len(_ENCODERS)) % 2)
    return _ENCODERS[number % len(_ENCODERS)](_pattern(generator, sides, blocks=blocks))


def _pattern(generator: np.random.Generator, sides: Sequence[int], *, blocks: bool) -> npt.NDArray[np.uint8]:
    """Draws blocks of colours, or gradients between them."""
    height, width = sides
    cells = generator.integers(0, 256, (4, 4, 3))
    if blocks:
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        pixels = cells[rows][:, columns]
    else:
        down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
        top = cells[0, 0] * (1 - across) + cells[0, 1] * across
        bottom = cells[1, 0] * (1 - across) + cells[1, 1] * across
        pixels = top * (1 - down) + bottom * down
    return pixels.astype(np.uint8)


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    return bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())


def _turned_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A JPEG whose EXIF entry says that it is to be turned by a quarter."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    plain = _jpeg(pixels)
    return plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    return bytes(tf.io.encode_png(pixels).numpy())


def _grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    return _png(pixels[:, :, :1])


def _deep_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    return bytes(tf.io.encode_png(pixels.astype(np.uint16) * 257).numpy())


def _gif(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A GIF of 125 colours without compression, whose second frame has the opposite colours."""
    height, width = pixels.shape[:2]
    levels = np.arange(_GIF_LEVELS) * 255 // (_GIF_LEVELS - 1)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    palette = np.zeros((_GIF_CLEAR, 3), np.uint8)
    palette[: len(colours)] = colours
    nearest = (pixels.astype(np.int64) * (_GIF_LEVELS - 1) + 127) // 255
    numbers = (nearest @ np.array([_GIF_LEVELS**2, _GIF_LEVELS, 1])).ravel()
    screen = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0x80 | (_GIF_BITS - 1), 0, 0)
    place = struct.pack("<BHHHHBB", 0x2C, 0, 0, width, height, 0, _GIF_BITS)
    frames = (place + _gif_codes(each) for each in (numbers, len(colours) - 1 - numbers))
    return b"".join((screen, palette.tobytes(), *frames, b";"))


def _gif_codes(numbers: npt.NDArray[np.int64]) -> bytes:
    """A frame's pixels as LZW codes of 8 bits: a clear code comes before any code would need 9."""
    content = bytearray()
    reach = _GIF_CLEAR - 2
    for start in range(0, len(numbers), reach):
        block = bytes([_GIF_CLEAR, *numbers[start : start + reach].tolist()])
        content += bytes([len(block)]) + block
    return bytes(content + bytes([1, _GIF_CLEAR + 1, 0]))


_ENCODERS = (_png, _jpeg, _grey_png, _turned_jpeg, _deep_png, _jpeg, bmp_file, _gif)
_ENCODER_OF = {"JPEG": _jpeg, "PNG": _png, "BMP": bmp_file, "GIF": _gif}


@dataclass(frozen=True)
class ImageInputs:
    """Image files with the checksums of the pixels that the model's decoder makes of them.

    Attributes:
        images: The files' bytes.
        pixels_sha256: For each, the checksum of its decoded and resized pixels, uint8
            ``(height, width, 3)``.
        preprocessor: The decoder's settings.
    """

    images: tuple[bytes, ...]
    pixels_sha256: tuple[str, ...]
    preprocessor: dict[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def draw(preprocessor: Any, *, seed: int) -> list[bytes]:
        """Draws the inputs of a model.

        Args:
            preprocessor: Its decoder.
            seed: Seed of the draw; with another one, others of the same kinds in the same order come.

        Returns:
            Image files, the same every time.
        """
        return make_golden_images(preprocessor.image_size, seed=seed)

    @staticmethod
    def draw_like(preprocessor: Any, features: Sequence[bytes]) -> list[bytes]:
        """Draws an input for each of some images, of its format and size, with nothing of what it shows.

        Args:
            preprocessor: The model's decoder.
            features: The images' files.

        Returns:
            Image files, the same every time.
        """
        generator = np.random.default_rng(0)
        drawn = []
        for number, feature in enumerate(features):
            header = preprocessor.header(tf.constant(feature))
            sides = int(header.height), int(header.width)
            encode = _ENCODER_OF[FORMATS[int(header.format)]]
            drawn.append(encode(_pattern(generator, sides, blocks=bool(number % 2))))
        return drawn

    @classmethod
    def observe(cls, preprocessor: Any, probe: Probe, rows: Sequence[int]) -> Self:
        """Notes what the model's decoder makes of the inputs.

        Args:
            preprocessor: The decoder.
            probe: Rows, some of which are the inputs.
            rows: Which of them.

        Returns:
            The inputs.
        """
        images = tuple(probe.features[row] for row in rows)
        return cls(images, _checksums(probe.tensors["pixels"][rows]), preprocessor.get_config())

    def probe(self, tensors: Sequence[str]) -> Probe:
        """Returns the inputs in the forms that artifacts take, decoded as the model decodes.

        Args:
            tensors: Names of the model's input tensors.
        """
        made, _ = ImageDecoder.from_config(self.preprocessor).fixed(self.images)
        return Probe(self.images, {name: made[name] for name in tensors})

    def changed(self) -> int:
        """Counts the images of which the decoder here makes other pixels than at export."""
        made, _ = ImageDecoder.from_config(self.preprocessor).fixed(self.images)
        pairs = zip(_checksums(made["pixels"]), self.pixels_sha256, strict=True)
        return sum(found != noted for found, noted in pairs)

    def to_rows(self) -> list[dict[str, Any]]:
        """Returns a mapping for each input, as JSON takes it."""
        pairs = zip(self.images, self.pixels_sha256, strict=True)
        return [
            {"image_bytes": base64.b64encode(image).decode("ascii"), "pixels_sha256": checksum}
            for image, checksum in pairs
        ]

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], preprocessor: Mapping[str, Any]) -> Self:
        """Reads what `to_rows` returned.

        Args:
            rows: A mapping for each input.
            preprocessor: The decoder's settings.

        Returns:
            The inputs.
        """
        images = tuple(base64.b64decode(row["image_bytes"], validate=True) for row in rows)
        return cls(images, tuple(row["pixels_sha256"] for row in rows), dict(preprocessor))

    def describe(self, row: int) -> str:
        """Words what kind of input one is.

        Args:
            row: Its number.
        """
        return f"golden image {row}, of {len(self.images[row])} bytes"


def _checksums(pixels: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in pixels)
