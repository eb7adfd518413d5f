"""Walks through the segments of JPEG files and the blocks of GIF files in the graph, in bounded steps."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_EXIF = b"Exif\0\0"
_SEGMENTS = 64
_LEAST_SCAN = 10
_TAGS = 256
_BLOCKS = 10_000
_RUN = 128
MOST_SCANS = 200
"""Scans that a JPEG file may have unless it is too small for more to matter."""

_BLOCK, _EXTENSION, _DATA, _DONE, _DAMAGED = range(5)


def bytes_at(contents: tf.Tensor, at: Any, count: int) -> tf.Tensor:
    """Reads bytes of a file.

    Args:
        contents: The file, a scalar string.
        at: Place of the first byte; any int32.
        count: How many bytes.

    Returns:
        int32 ``(count,)``, zeros beyond the file's end.
    """
    at = tf.clip_by_value(at, 0, tf.strings.length(contents))
    piece = tf.strings.substr(contents, at, count)
    return tf.cast(tf.io.decode_raw(piece, tf.uint8, fixed_length=count), tf.int32)


def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Reads the orientation that a JPEG file's EXIF block states.

    Args:
        contents: The file, a scalar string.

    Returns:
        int32, 1 up to 8; 1 when the block is missing or makes no sense.

    Reference:
        CIPA DC-008, Exchangeable image file format for digital still cameras: Exif 2.32, section 4.6.
    """
    head = bytes_at(contents, 2, 32)
    # Most files without EXIF show at once that no application segment follows the first one.
    following = 2 + head[2] * 256 + head[3]
    second = tf.gather(head, tf.minimum(following + 1, 31))
    over = (head[1] == 0xE0) & (following < 31) & ~_passed(second)
    place = tf.cond(over, lambda: tf.constant(0), lambda: _find_exif(contents))
    return tf.cond(place > 0, lambda: _orientation_tag(contents, place), lambda: tf.constant(1))


def _passed(marker: tf.Tensor) -> tf.Tensor:
    """Whether a segment may stand before EXIF: application segments and comments."""
    return ((marker & 0xF0) == 0xE0) | (marker == 0xFE)


def _find_exif(contents: tf.Tensor) -> tf.Tensor:
    """Finds where the EXIF block's TIFF structure begins, int32; 0 when there is none."""

    def step(place: tf.Tensor, _: tf.Tensor) -> list[tf.Tensor]:
        piece = bytes_at(contents, place, 10)
        exif = (piece[0] == 0xFF) & (piece[1] == 0xE1) & tf.reduce_all(piece[4:] == list(_EXIF))
        size = 2 + piece[2] * 256 + piece[3]
        going = (piece[0] == 0xFF) & _passed(piece[1]) & ~exif & (size >= 4)
        return [tf.where(going, place + size, -1), tf.where(exif, place + 10, 0)]

    return tf.while_loop(
        lambda place, _: place >= 0, step, [tf.constant(2), tf.constant(0)], maximum_iterations=_SEGMENTS
    )[1]


def _orientation_tag(contents: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Looks tag 0x0112 up in the first directory of the TIFF structure that begins at ``tiff``."""
    head = bytes_at(contents, tiff, 8)
    little, big = tf.reduce_all(head[:4] == list(b"II*\0")), tf.reduce_all(head[:4] == list(b"MM\0*"))
    # The directory of a file of a camera lies in the first megabytes; a wild offset ends at its clipping.
    scale = tf.where(little, [1, 2**8, 2**16, 2**24], [2**24, 2**16, 2**8, 1])
    offset = tf.reduce_sum(tf.cast(head[4:], tf.int64) * tf.cast(scale, tf.int64))
    place = tiff + tf.cast(tf.minimum(offset, 2**24), tf.int32)
    pair = tf.where(little, [1, 256], [256, 1])
    count = tf.reduce_sum(bytes_at(contents, place, 2) * pair)
    tags = tf.reshape(bytes_at(contents, place + 2, 12 * _TAGS), [_TAGS, 12])
    names, kinds, values = (tf.reduce_sum(tags[:, at : at + 2] * pair, axis=1) for at in (0, 2, 8))
    found = (names == 0x0112) & (kinds == 3) & (tf.range(_TAGS) < count) & (values >= 1) & (values <= 8)
    value = tf.gather(values, tf.argmax(found, output_type=tf.int32))
    return tf.where((tiff > 0) & (little | big) & tf.reduce_any(found), value, 1)


def count_scans(contents: tf.Tensor, *, harmless: tf.Tensor) -> tf.Tensor:
    """Counts the scans of a JPEG file, each of which makes a decoder pass over the whole image.

    Args:
        contents: The file, a scalar string.
        harmless: So many scans do no harm, int32; a file too small to hold more is not looked through.

    Returns:
        int32, at least the number of scans a decoder would go through, or at least `MOST_SCANS` + 1; 1 when
        they do no harm.
    """

    def counted() -> tf.Tensor:
        # Thumbnails and films that cameras append hold such bytes too, so this may be too many.
        return tf.size(tf.strings.split(contents, b"\xff\xda", maxsplit=MOST_SCANS + 1)) - 1

    possible = tf.strings.length(contents) // _LEAST_SCAN
    return tf.cond(
        possible <= harmless,
        lambda: tf.constant(1),
        lambda: tf.cond(_single_pass(contents), lambda: tf.constant(1), counted),
    )


def _single_pass(contents: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG file is sequential and its first scan holds all components."""

    def step(place: tf.Tensor, components: tf.Tensor, _: tf.Tensor) -> list[tf.Tensor]:
        piece = bytes_at(contents, place, 10)
        marker = piece[1]
        sequential = (marker == 0xC0) | (marker == 0xC1) | (marker == 0xC9)
        scan = (piece[0] == 0xFF) & (marker == 0xDA)
        size = 2 + piece[2] * 256 + piece[3]
        going = (piece[0] == 0xFF) & (size >= 4) & ~scan
        return [
            tf.where(going, place + size, -1),
            tf.where(sequential, piece[9], components),
            scan & (piece[4] == components),
        ]

    state = [tf.constant(2), tf.constant(-1), tf.constant(False)]
    return tf.while_loop(lambda place, *_: place >= 0, step, state, maximum_iterations=_SEGMENTS)[2]


def gif_palette_size(flags: tf.Tensor) -> tf.Tensor:
    """Tells how many bytes the palette that a GIF descriptor announces takes.

    Args:
        flags: The packed byte of a screen's or frame's descriptor, int32.

    Returns:
        int32, 0 without a palette.
    """
    return tf.where((flags & 0x80) > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def first_gif_frame(contents: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the first frame of a GIF file.

    Args:
        contents: The file, a scalar string.
        at: Where the blocks begin.

    Returns:
        Where the frame's descriptor begins, where the frame ends, and how that went: 3 when it was found,
        4 when there is none, less when it is in too many pieces.
    """
    length = tf.strings.length(contents)

    def block(place: tf.Tensor, frame: tf.Tensor) -> list[tf.Tensor]:
        piece = bytes_at(contents, place, 10)
        extension, image = piece[0] == 0x21, piece[0] == 0x2C
        state = tf.where(extension, _EXTENSION, tf.where(image, _DATA, _DAMAGED))
        data = place + 11 + gif_palette_size(piece[9])
        return [tf.where(extension, place + 2, data), tf.where(image, place, frame), state]

    def pieces(place: tf.Tensor, frame: tf.Tensor, state: tf.Tensor) -> list[tf.Tensor]:
        """Passes over pieces of equal size, which is how nearly all files are written."""
        stride = bytes_at(contents, place, 1)[0] + 1
        run = tf.strings.substr(contents, tf.minimum(place, length), _RUN * stride)
        run = tf.io.decode_raw(run, tf.uint8, fixed_length=_RUN * 256)
        sizes = tf.cast(tf.gather(run, tf.range(_RUN) * stride), tf.int32)
        equal = tf.argmin(tf.concat([sizes == stride - 1, [False]], axis=0), output_type=tf.int32)
        over = (stride == 1) | (place >= length)
        following = tf.where(state == _EXTENSION, _BLOCK, _DONE)
        return [tf.where(over, place + 1, place + equal * stride), frame, tf.where(over, following, state)]

    def step(place: tf.Tensor, frame: tf.Tensor, state: tf.Tensor) -> Any:
        return tf.cond(state == _BLOCK, lambda: block(place, frame), lambda: pieces(place, frame, state))

    place, frame, state = tf.while_loop(
        lambda place, frame, state: state < _DONE,
        step,
        [at, tf.constant(0), tf.constant(_BLOCK)],
        maximum_iterations=_BLOCKS,
    )
    return frame, tf.minimum(place, length), state
