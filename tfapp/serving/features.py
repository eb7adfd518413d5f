"""What users hand in to be classified, as the bytes that a SavedModel takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.data.image_store import png_file
from tfapp.errors import DataError

_QUICK = 1  # the least compression of zlib


def text_bytes(text: Any, number: int) -> bytes:
    """Encodes a text.

    Args:
        text: A text.
        number: Its number, for messages.

    Returns:
        UTF-8.

    Raises:
        DataError: When it is no text, or UTF-8 cannot write it.
    """
    if not isinstance(text, str):
        raise DataError(f"text {number} is {type(text).__name__} instead of str.")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"text {number} ({text!r:.60}) holds half a surrogate pair, which UTF-8 cannot write; repair it."
        ) from error


def image_bytes(image: Any, number: int) -> bytes:
    """Reads or encodes an image.

    Args:
        image: The path of a file, the bytes of one, or pixels as a uint8 array ``(height, width, 3)``.
        number: Its number, for messages.

    Returns:
        An encoded image; whether it can be decoded is for the model to say.

    Raises:
        DataError: When it is none of these, or the file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).expanduser().read_bytes()
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # NUL in a path; no such home
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{image} cannot be read: {reason}; give the path of a file.") from error
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] in (1, 3, 4)
    ):
        return png_file(image, compression=_QUICK)
    what = (
        f"an array {image.shape} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
    )
    raise DataError(
        f"image {number} is {what}; give a path, the bytes of a file, or a uint8 array (height, width, 3)."
    )


def feature_name(feature: Any, number: int) -> str:
    """Words which of several texts or images is meant.

    Args:
        feature: What the user gave.
        number: Its number.

    Returns:
        A path, or the number.
    """
    return str(feature) if isinstance(feature, str | Path) else f"image {number}"


def refusal_text(error: Any) -> str:
    """Takes the words that the graph refuses an image with out of TensorFlow's error.

    Args:
        error: The `tf.errors.InvalidArgumentError` that running the graph raised.

    Returns:
        One line.
    """
    return refusal_words(str(error.message))


def refusal_words(message: str) -> str:
    """Takes the words that the graph refuses an image with out of an error's message.

    Args:
        message: TensorFlow's message, as servers pass it on.

    Returns:
        One line.
    """
    said = re.search(r"assertion failed: \[(?:b')?(.*?)'?\]", message, re.DOTALL)
    return " ".join((said[1] if said else message.partition("\n")[0]).split())
