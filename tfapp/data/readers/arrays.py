"""Images that are in memory as one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.image_store import ArrayImages
from tfapp.data.readers.image_table import ImageTable
from tfapp.data.readers.in_memory import read_pair
from tfapp.errors import DataError

_SHAPES = "(n, height, width), or (n, height, width, channels) of 1, 3 or 4 channels"


def is_array(value: Any) -> bool:
    """Tells whether something is an array of images, in NumPy or TensorFlow.

    Args:
        value: Anything.

    Returns:
        True for arrays and tensors of numbers; False for arrays of paths.
    """
    return hasattr(value, "__array__") and hasattr(value, "dtype") and np.asarray(value).dtype.kind in "biufc"


def read_arrays(pixels: Any, labels: Any, *, name: str) -> ImageTable:
    """Takes an array of images and their labels.

    Args:
        pixels: uint8 or uint16 array of shape (n, height, width) or (n, height, width, channels).
        labels: Sequence (n,) of labels.
        name: What to call them in messages.

    Returns:
        The table; the first image has index 0, and the array is not copied.

    Raises:
        DataError: If the shape or type is another, or the lengths differ.
    """
    images: npt.NDArray[Any] = np.asarray(pixels)
    shape = images.shape
    if images.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{name} holds images of type {images.dtype}; pixels must be whole numbers, uint8 (0..255) or "
            f"uint16 (0..65,535). {_cure(images)}"
        )
    if len(shape) not in (3, 4) or 0 in shape[1:] or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        first = ""
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            first = " Channels come last: use images.transpose(0, 2, 3, 1)."
        raise DataError(f"{name} holds images of shape {shape}; give {_SHAPES}.{first}")
    if len(images) != len(labels):
        raise DataError(
            f"{name} has {len(images)} images and {len(labels)} labels; give one label for every image."
        )
    table = read_pair([None] * len(images), labels, name=name)
    return ImageTable(table, ArrayImages(images, np.arange(len(images)), name), name)


def _cure(images: npt.NDArray[Any]) -> str:
    if images.dtype.kind == "f" and images.size:
        largest = float(np.nanmax(images))
        if 0 < largest <= 1:
            return f"Their largest value is {largest:g}: use (images * 255).round().astype('uint8')."
    return "If they are 0..255 already, use images.astype('uint8')."
