"""Small images that are unlike each other, as arrays and as files, for tests of image data."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def photograph(seed: int, height: int = 40, width: int = 32, channels: int = 3) -> np.ndarray:
    """Makes an image of smooth random shapes: uint8 (height, width, channels)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, channels)).astype(np.float64)
    rows, columns = np.linspace(0, 7, height), np.linspace(0, 7, width)
    low, left = np.minimum(rows.astype(int), 6), np.minimum(columns.astype(int), 6)
    down, across = (rows - low)[:, None, None], (columns - left)[None, :, None]
    top = coarse[low][:, left] * (1 - across) + coarse[low][:, left + 1] * across
    bottom = coarse[low + 1][:, left] * (1 - across) + coarse[low + 1][:, left + 1] * across
    return np.round(top * (1 - down) + bottom * down).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray, quality: int = 95) -> Path:
    """Writes an image in the format of its suffix."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".jpg", ".jpeg"):
        content = tf.io.encode_jpeg(pixels, quality=quality).numpy()
    else:
        content = tf.io.encode_png(pixels).numpy()
    path.write_bytes(content)
    return path


def write_classes(folder: Path, classes: dict[str, int], *, first: int = 0, suffix: str = ".png") -> Path:
    """Writes a folder of class folders with so many different images each."""
    seed = first
    for name, count in classes.items():
        for number in range(count):
            write_image(folder / name / f"{number:03}{suffix}", photograph(seed))
            seed += 1
    return folder
