"""What `prepare` asks of every image before it is used: can it be decoded, how large is it, what is on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment.colour import LUMA
from tfapp.data.image_decoding import ImageDecoder, compiled_when_called
from tfapp.data.image_duplicates import SIDE
from tfapp.data.image_headers import FORMATS, ImageHeader, problem_text

_CHUNK = 64


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image.

    Attributes:
        format: ``"JPEG"``, ``"PNG"``, ``"BMP"`` or ``"GIF"``; ``"unknown"`` for other files.
        width: Columns of pixels after orientation; 0 when not known.
        height: Rows of pixels after orientation; 0 when not known.
        error: Why the image cannot be used, in plain words without a full stop; None when it can.
        thumbnail: Grey copy of the decoded pixels, uint8 ``(32, 32)``; None with an error.
    """

    format: str
    width: int
    height: int
    error: str | None
    thumbnail: npt.NDArray[np.uint8] | None


def inspect_images(decoder: ImageDecoder, contents: Sequence[bytes]) -> list[ImageFacts]:
    """Decodes images as training will, and tells what each is; bad ones do not disturb the others.

    A decoder of a small ``image_size``, such as 64, refuses the same images as a larger one and is faster.

    Args:
        decoder: What training will decode with.
        contents: The encoded images, any number; they are taken in chunks.

    Returns:
        The facts of each image, in their order.
    """
    inspector = _inspector(decoder)
    facts: list[ImageFacts] = []
    for start in range(0, len(contents), _CHUNK):
        chunk = [contents[row] for row in range(start, min(start + _CHUNK, len(contents)))]
        facts.extend(inspector.chunk(chunk))
    return facts


class _Inspector:
    """The graphs that inspect images with one decoder."""

    def __init__(self, decoder: ImageDecoder) -> None:
        self._decoder = decoder
        self._whole = compiled_when_called(lambda contents: self._mapped(self._one, contents))
        self._header = compiled_when_called(lambda contents: self._mapped(self._about, contents))

    @staticmethod
    def _mapped(function: Callable[[tf.Tensor], Any], contents: tf.Tensor) -> Any:
        numbers = tf.TensorSpec((3,), tf.int64)
        thumbnail = tf.TensorSpec((SIDE, SIDE), tf.uint8)
        words = tf.TensorSpec((), tf.string)
        return tf.map_fn(function, contents, fn_output_signature=(numbers, words, thumbnail))

    def _about(self, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Format, width and height; what is wrong; and no thumbnail."""
        return self._described(self._decoder.header(contents), tf.zeros((SIDE,) * 2, tf.uint8))

    def _one(self, contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As `_about`, with the thumbnail; refuses bad images."""
        header = self._decoder.header(contents)
        pixels = self._decoder.decode_after(header, contents)
        small = tf.image.resize(pixels, (SIDE, SIDE), method="area")
        grey = tf.linalg.matvec(small, tf.constant(LUMA))
        return self._described(header, tf.cast(tf.round(grey), tf.uint8))

    def _described(self, header: ImageHeader, thumbnail: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        sides = tf.stack([header.width, header.height])
        sides = tf.where(header.orientation >= 5, tf.reverse(sides, [0]), sides)
        numbers = tf.concat([tf.cast(header.format, tf.int64)[tf.newaxis], sides], axis=0)
        return numbers, problem_text(header, max_pixels=self._decoder.max_pixels), thumbnail

    def chunk(self, contents: Sequence[bytes]) -> list[ImageFacts]:
        """The facts of images that are decoded together, or one by one if one of them is bad."""
        try:
            return _facts(self._whole(tf.constant(contents, tf.string)))
        except tf.errors.OpError:
            return [self.single(one) for one in contents]

    def single(self, contents: bytes) -> ImageFacts:
        """The facts of one image, which may be bad."""
        batch = tf.constant([contents], tf.string)
        try:
            answer = self._header(batch)
        except tf.errors.OpError:
            return ImageFacts("JPEG", 0, 0, "the JPEG file's header is damaged or cut short", None)
        (facts,) = _facts(answer)
        if facts.error:
            return facts
        try:
            return _facts(self._whole(batch))[0]
        except tf.errors.OpError:
            return replace(facts, error=f"the {facts.format} file is damaged or cut short", thumbnail=None)


@functools.lru_cache(maxsize=4)
def _inspector(decoder: ImageDecoder) -> _Inspector:
    """Keeps the graphs of decoders that are asked again."""
    return _Inspector(decoder)


def _facts(answer: Any) -> list[ImageFacts]:
    numbers, words, thumbnails = (part.numpy() for part in answer)
    facts = []
    for (kind, width, height), problem, thumbnail in zip(numbers, words, thumbnails, strict=True):
        error = problem.decode() or None
        shown = None if error else thumbnail
        facts.append(ImageFacts(FORMATS[kind], int(width), int(height), error, shown))
    return facts
