"""Encoded images as rows that batches of pixels are gathered from."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.errors import DataError

if TYPE_CHECKING:
    from tfapp.data.image_decoding import ImageDecoder

_NAMED = 5


@dataclass(frozen=True)
class EncodedImages:
    """Images that stay encoded where they lie until their row is gathered.

    Attributes:
        images: The encoded images, read when asked; with ``name(row)`` where they have names.
        decoder: What makes pixels of them.
        digests: The SHA-256 of each image's bytes in hexadecimal digits, where it is known.
    """

    images: Sequence[bytes]
    decoder: ImageDecoder
    digests: Sequence[str] | None = None
    texts: None = None
    max_length: int = 1

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """All 1: images have no length. int32 ``(rows,)``."""
        return np.ones(len(self), np.int32)

    def average(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns what was computed for rows: every row is an image of its own."""
        return values

    def fingerprint(self) -> str:
        """The SHA-256 of the decoder's settings and of every image's bytes, in hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.decoder.get_config(), sort_keys=True).encode())
        known = self.digests or (hashlib.sha256(image).hexdigest() for image in self.images)
        for each in known:
            digest.update(bytes.fromhex(each))
        return digest.hexdigest()

    def name(self, row: int) -> str:
        """What messages call an image."""
        named = getattr(self.images, "name", None)
        return f"image {row}" if named is None else str(named(row))


class ImageRows:
    """Encoded images as rows.

    Args:
        encoded: The images and their decoder.
    """

    def __init__(self, encoded: EncodedImages) -> None:
        self.lengths = encoded.lengths
        self._encoded = encoded

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers ``pixels``, uint8 ``(batch, height, width, 3)``; see `naming_bad_images`."""
        contents, problem = tf.numpy_function(
            self._read, [indices], (tf.string, tf.string), stateful=False, name="read_images"
        )
        with tf.control_dependencies([tf.debugging.Assert(problem == "", [problem])]):
            contents = tf.ensure_shape(contents, [None])
        return self._encoded.decoder(contents)

    def _read(self, indices: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.object_], bytes]:
        """The bytes of images, or which of them cannot be read: an exception would lose its words."""
        _READ_LAST.append((self._encoded, indices.tolist()))
        contents = np.full(len(indices), b"", object)
        for place, row in enumerate(indices.tolist()):
            read = _read_one(self._encoded, row)
            if isinstance(read, str):
                return contents, read.encode()
            contents[place] = read
        return contents, b""


_READ_LAST: deque[tuple[EncodedImages, list[int]]] = deque(maxlen=64)
"""The batches that were read last: the one at which TensorFlow failed is among them."""


@contextmanager
def naming_bad_images() -> Iterator[None]:
    """Tells, when TensorFlow fails in here at images that cannot be read or decoded, which they are.

    Decoding runs far from Python, and its errors know no names: so the images that were read last are
    looked through again.

    Raises:
        DataError: With the names of the images and what is wrong with them; any other error passes.
    """
    _READ_LAST.clear()
    try:
        yield
    except tf.errors.OpError as error:
        complaints = sorted(set(_complaints()))
        if not complaints:
            raise
        more = "" if len(complaints) <= _NAMED else f"; and {len(complaints) - _NAMED} more"
        raise DataError(
            f"{'; '.join(complaints[:_NAMED])}{more}. Restore what was damaged, or leave it out and prepare "
            "the data again."
        ) from error
    finally:
        _READ_LAST.clear()


def _complaints() -> Iterator[str]:
    """What is wrong with images that were read last, each with its name."""
    from tfapp.data.image_inspection import inspect_images

    for encoded, rows in list(_READ_LAST):
        reads = {row: _read_one(encoded, row) for row in rows}
        yield from (read for read in reads.values() if isinstance(read, str))
        images = {row: read for row, read in reads.items() if isinstance(read, bytes)}
        for row, facts in zip(images, inspect_images(encoded.decoder, list(images.values())), strict=True):
            if facts.error:
                yield f"{encoded.name(row)}: {facts.error}"


def _read_one(encoded: EncodedImages, row: int) -> bytes | str:
    """An image's bytes, or in words why there are none."""
    try:
        return bytes(encoded.images[row])
    except DataError as error:
        return str(error).rstrip(".")
    except (OSError, ValueError) as error:
        return f"{encoded.name(row)} cannot be read: {getattr(error, 'strerror', None) or error}"
