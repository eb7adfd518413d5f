"""Checksums of arrays, by which caches and checkpoints know what they were made from."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy.typing as npt


def digest(*arrays: npt.NDArray[Any]) -> str:
    """Computes the checksum of arrays of numbers, of any type.

    Args:
        arrays: The arrays.

    Returns:
        SHA-256 of their values and shapes, hexadecimal.
    """
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(f"{array.dtype} {array.shape} ".encode())
        checksum.update(array.tobytes())
    return checksum.hexdigest()
