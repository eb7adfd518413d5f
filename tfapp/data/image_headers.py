"""What the first bytes of an encoded image say, read in the graph before anything is decoded."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from tfapp.data.image_segments import (
    MOST_SCANS,
    bytes_at,
    count_scans,
    exif_orientation,
    first_gif_frame,
    gif_palette_size,
)

FORMATS = ("unknown", "JPEG", "PNG", "BMP", "GIF")
"""Names of the formats that can be decoded, at the place of their number."""


_HEAD = 64
_FULL_PASSES = 50
"""Passes over an image of the most pixels that may be spent on one JPEG file."""

_LONGEST_SIDE = 2**31 - 1

_FINE = 0
_PROBLEMS = (
    "",
    "not an image in JPEG, PNG, BMP or GIF format",
    "the file is empty",
    "the image has no pixels",
    "the image is larger than max_pixels allows",
    f"the JPEG file has so many scans that decoding it could take minutes (at most {MOST_SCANS}, "
    "fewer for large images)",
    "the PNG file does not begin with its header chunk",
    "the GIF file holds no frame, or is damaged before it",
    "the GIF file's first frame is in too many pieces",
    "the BMP file's header is damaged or of an old kind",
    "the BMP file is compressed; save it without compression, or as PNG",
    "the BMP file has colours that cannot be read here (8-bit grey, 24 and 32 bits can); save it as PNG",
    "the BMP file is cut short",
)
_NOT_AN_IMAGE, _EMPTY, _NO_PIXELS, _TOO_LARGE, _SCANS, _NO_HEADER_CHUNK = range(1, 7)
_NO_FRAME, _PIECES, _BMP_HEADER, _BMP_COMPRESSED, _BMP_COLOURS, _BMP_SHORT = range(7, 13)

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a")
_SIGNATURE_BYTES = [list(signature.ljust(8, b"\0")) for signature in _SIGNATURES]
_SIGNATURE_FREE = [[place >= len(signature) for place in range(8)] for signature in _SIGNATURES]


class ImageHeader(NamedTuple):
    """Scalars that describe one encoded image.

    Attributes:
        format: The place in `FORMATS`, int32.
        height: Rows of pixels as stored, before orientation, int64; 0 when not known.
        width: Columns of pixels as stored, int64; 0 when not known.
        orientation: EXIF orientation, int32, 1 up to 8.
        deep: Whether samples have 16 bits, bool.
        start: Where the first frame's descriptor begins, int32; GIF only.
        end: Where the first frame ends, int32; GIF only.
        problem: Why the image is refused, int32; 0 when it is not.
    """

    format: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor
    deep: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    problem: tf.Tensor


class _File(NamedTuple):
    """What every format's reader is given."""

    contents: tf.Tensor
    head: tf.Tensor
    length: tf.Tensor
    max_pixels: int


def header_of(contents: tf.Tensor, *, max_pixels: int) -> ImageHeader:
    """Reads the header of an encoded image, and decides whether it may be decoded.

    Args:
        contents: The file's bytes, a scalar string.
        max_pixels: Most pixels an image may have.

    Returns:
        The header. A JPEG file whose header libjpeg cannot read raises InvalidArgumentError.
    """
    head = tf.cast(tf.io.decode_raw(contents, tf.uint8, fixed_length=_HEAD), tf.int64)
    length = tf.strings.length(contents)
    matches = tf.reduce_all((head[:8] == _SIGNATURE_BYTES) | _SIGNATURE_FREE, axis=1)
    kind = tf.cast(tf.reduce_max(tf.cast(matches, tf.int32) * [1, 2, 3, 4, 4]), tf.int32)
    file = _File(contents, head, length, max_pixels)
    readers = [partial(read, file) for read in (_unknown, _jpeg, _png, _bmp, _gif)]
    height, width, orientation, deep, start, end, problem = tf.switch_case(kind, readers)
    pixels = height * width
    problem = _first(
        (problem != _FINE, problem), (pixels <= 0, _NO_PIXELS), (pixels > max_pixels, _TOO_LARGE)
    )
    return ImageHeader(kind, height, width, orientation, deep, start, end, problem)


def problem_text(header: ImageHeader, *, max_pixels: int) -> tf.Tensor:
    """Says in plain words why an image is refused.

    Args:
        header: The image's header.
        max_pixels: Most pixels an image may have.

    Returns:
        A scalar string, empty when the image is not refused.
    """
    sizes = [tf.strings.as_string(header.width), " x ", tf.strings.as_string(header.height)]
    large = tf.strings.join(
        ["the image has ", *sizes, f" pixels, more than max_pixels = {max_pixels:,} allows"]
    )
    return tf.where(header.problem == _TOO_LARGE, large, tf.gather(tf.constant(_PROBLEMS), header.problem))


def _first(*cases: tuple[Any, Any]) -> tf.Tensor:
    """The value of the first case that is true, else 0."""
    chosen = tf.constant(_FINE)
    for condition, value in reversed(cases):
        chosen = tf.where(condition, value, chosen)
    return chosen


def _big(head: tf.Tensor, at: int) -> tf.Tensor:
    """Four bytes with the most significant first."""
    return tf.reduce_sum(head[at : at + 4] * [2**24, 2**16, 2**8, 1])


def _little(head: tf.Tensor, at: int, size: int = 4) -> tf.Tensor:
    """Bytes with the least significant first."""
    return tf.reduce_sum(head[at : at + size] * [2 ** (8 * place) for place in range(size)])


def _signed(value: tf.Tensor) -> tf.Tensor:
    return tf.where(value >= 2**31, value - 2**32, value)


def _answer(
    height: Any = 0,
    width: Any = 0,
    *,
    orientation: Any = 1,
    deep: Any = False,
    frame: tuple[Any, Any] = (0, 0),
    problem: Any = _FINE,
) -> list[tf.Tensor]:
    """What every format's reader returns, as tensors of the same types."""
    return [
        tf.cast(height, tf.int64),
        tf.cast(width, tf.int64),
        tf.cast(orientation, tf.int32),
        tf.cast(deep, tf.bool),
        tf.cast(frame[0], tf.int32),
        tf.cast(frame[1], tf.int32),
        tf.cast(problem, tf.int32),
    ]


def _unknown(file: _File) -> list[tf.Tensor]:
    return _answer(problem=tf.where(file.length == 0, _EMPTY, _NOT_AN_IMAGE))


def _jpeg(file: _File) -> list[tf.Tensor]:
    # libjpeg's own word on the size: what is checked is what would be decoded.
    sides = tf.cast(tf.io.extract_jpeg_shape(file.contents, output_type=tf.int32)[:2], tf.int64)
    padded = tf.reduce_prod((sides + 15) // 16 * 16)
    harmless = _FULL_PASSES * file.max_pixels // tf.maximum(padded, 1)
    harmless = tf.cast(tf.clip_by_value(harmless, 1, 2**30), tf.int32)
    scans = count_scans(file.contents, harmless=harmless)
    problem = tf.where(scans > tf.minimum(harmless, MOST_SCANS), _SCANS, _FINE)
    return _answer(sides[0], sides[1], orientation=exif_orientation(file.contents), problem=problem)


def _png(file: _File) -> list[tf.Tensor]:
    header_chunk = tf.reduce_all(file.head[8:16] == list(b"\0\0\0\x0dIHDR"))
    width, height = (tf.minimum(_big(file.head, at), _LONGEST_SIDE) for at in (16, 20))
    problem = tf.where(header_chunk, _FINE, _NO_HEADER_CHUNK)
    return _answer(height, width, deep=file.head[24] == 16, problem=problem)


def _bmp(file: _File) -> list[tf.Tensor]:
    head, length = file.head, tf.cast(file.length, tf.int64)
    data, header_size = _little(head, 10), _little(head, 14)
    width, height = _signed(_little(head, 18)), tf.abs(_signed(_little(head, 22)))
    bits, compression, used = _little(head, 28, 2), _little(head, 30), _little(head, 46)
    masks = tf.reduce_all(head[54:64] == [0, 0, 255, 0, 0, 255, 0, 0, 255, 0])
    plain = (compression == 0) | ((compression == 3) & (bits == 32) & masks)
    readable = (bits == 24) | (bits == 32) | ((bits == 8) & _grey_palette(file, 14 + header_size, used))
    row = (width * bits + 31) // 32 * 4
    problem = _first(
        ((header_size < 40) | (width < 0) | (data < 14 + header_size), _BMP_HEADER),
        ((width == 0) | (height == 0), _NO_PIXELS),
        (~readable, _BMP_COLOURS),
        (~plain, _BMP_COMPRESSED),
        ((width * height <= file.max_pixels) & (data + row * height > length), _BMP_SHORT),
    )
    return _answer(height, width, problem=problem)


def _grey_palette(file: _File, at: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
    """Whether a BMP palette's colours are the grey levels in order: TensorFlow does not look at palettes."""
    at = tf.cast(tf.minimum(at, tf.cast(file.length, tf.int64)), tf.int32)
    palette = tf.reshape(bytes_at(file.contents, at, 1024), [256, 4])[:, :3]
    place = tf.range(256)[:, tf.newaxis]
    colours = tf.cast(tf.where((used == 0) | (used > 256), tf.constant(256, tf.int64), used), tf.int32)
    return tf.reduce_all((palette == place) | (place >= colours))


def _gif(file: _File) -> list[tf.Tensor]:
    flags = tf.cast(file.head[10], tf.int32)
    at, end, state = first_gif_frame(file.contents, 13 + gif_palette_size(flags))
    frame = tf.cast(bytes_at(file.contents, at, 10), tf.int64)
    problem = tf.gather([_PIECES, _PIECES, _PIECES, _FINE, _NO_FRAME], state)
    return _answer(_little(frame, 7, 2), _little(frame, 5, 2), frame=(at, end), problem=problem)
