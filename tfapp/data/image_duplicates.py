"""Near duplicates: one photograph resized, encoded again or made brighter, or two that show the same.

The perceptual hash of an image is a vector of 205 numbers. It is the discrete cosine transform of the grey
32 x 32 thumbnail between 3 and 16 half waves, which leaves out the fall of light and what compression
destroys; less its part along the 16 strongest directions of the whole set; of length 1. What all images of a
set share, such as the frame and the conductors of solar cells, says nothing about two of them. Two images are
near duplicates when the product of their hashes is at least 0.97 (0.99 in sets of less than 128 images, where
nothing is known to be shared). Images without contrast have no hash.

Of 200 changed copies for each set and change, so many reach 0.97 with their original; in brackets the
product that 95 % of them exceed:

    =====================  ===============  ==============  =================
    change                 magnetic tiles   solar cells     CIFAR-10 (32 px)
    =====================  ===============  ==============  =================
    resized to 150 %       100 %   (0.992)  100 %  (0.999)  100 %    (0.999)
    resized to 75 %        100 %   (0.992)  100 %  (0.998)  100 %    (0.991)
    resized to 50 %        100 %   (0.992)  100 %  (0.996)  1.5 %    (0.936)
    JPEG of quality 60     100 %   (0.996)  100 %  (0.994)  100 %    (0.993)
    brighter by 10 %       96.5 %  (0.978)  98 %   (0.995)  99.5 %   (0.996)
    =====================  ===============  ==============  =================

Of different images, 291 pairs of the 1,344 tile photographs reach it: those that were looked at show one
tile in another light. So do 208 pairs of the 2,624 solar cells: 184 of polycrystalline cells, which show the
same crystals where they were looked at, and 24 of monocrystalline ones, which mostly just look alike; and 7
pairs of 17,500 in CIFAR-10. Without taking away what is shared, 1,429 of the solar cells would have such a
partner.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft  # type: ignore[import-untyped]

SIDE = 32
_LOWEST, _HIGHEST = 3, 16
_DIRECTIONS, _IMAGES_PER_DIRECTION, _SAMPLE = 16, 32, 2048
_SMALL_SET = 128
_ALIKE, _ALIKE_IN_SMALL_SETS, _COPIES = 0.97, 0.99, 0.998
_CONTRAST = 1.0  # grey levels, as a root mean square
_REST = 0.02
_BLOCK = 2048

Floats = npt.NDArray[np.float32]


class Thumbnails:
    """Grey thumbnails of any number of images, kept in a temporary file and not in memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._rows = 0

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._rows

    def add(self, thumbnail: npt.NDArray[np.uint8]) -> int:
        """Keeps one thumbnail.

        Args:
            thumbnail: uint8 array (32, 32).

        Returns:
            Its position.
        """
        self._file.seek(self._rows * SIDE * SIDE)
        self._file.write(np.ascontiguousarray(thumbnail, np.uint8).tobytes())
        self._rows += 1
        return self._rows - 1

    def read(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Reads some thumbnails.

        Args:
            positions: int64 array (n,).

        Returns:
            uint8 array (n, 1024).
        """
        pixels = np.empty((len(positions), SIDE * SIDE), np.uint8)
        for row, position in enumerate(positions.tolist()):
            self._file.seek(position * SIDE * SIDE)
            self._file.readinto(pixels[row])
        return pixels


def near_pairs(
    thumbnails: Thumbnails,
    positions: npt.NDArray[np.int64],
    keys: npt.NDArray[Any],
    *,
    first: int | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Finds the pairs of near duplicates among all pairs of images, in blocks of flat memory.

    Args:
        thumbnails: The thumbnails.
        positions: int64 array (rows,): the position of each image's thumbnail.
        keys: Object array (rows,) of ``str``: the images' checksums. They choose the sample that tells what
            the set shares, so that the order of the rows does not matter.
        first: Looks only for pairs with one of so many first rows; for all when None.

    Yields:
        Two int64 arrays of positions among the rows, the first below the second: some of the pairs. Each pair
        comes once.
    """
    rows = len(positions)
    if rows < 2:
        return
    sample = np.sort(np.argsort(keys.astype(str), kind="stable")[:_SAMPLE])
    shared = _shared_directions(_waves(thumbnails.read(positions[sample])), rows)
    threshold = _ALIKE if rows >= _SMALL_SET else _ALIKE_IN_SMALL_SETS
    with tempfile.TemporaryFile() as file:
        width = len(_WAVES.T)
        for start in range(0, rows, _BLOCK):
            waves = _waves(thumbnails.read(positions[start : start + _BLOCK]))
            file.write(_without(waves, shared).tobytes())

        def block(start: int) -> Floats:
            file.seek(start * width * 4)
            count = min(_BLOCK, rows - start) * width
            return np.frombuffer(file.read(count * 4), np.float32).reshape(-1, width)

        last = rows if first is None else first
        for start in range(0, last, _BLOCK):
            one = block(start)
            for other in range(start, rows, _BLOCK):
                products = one @ (one if other == start else block(other)).T
                left, right = np.nonzero(products >= threshold)
                kept = (left + start < right + other) & (left + start < last)
                if kept.any():
                    yield left[kept] + start, right[kept] + other


def _wave_matrix() -> Floats:
    """The two-dimensional cosine waves between the lowest and the highest; float32 (1024, waves)."""
    waves = scipy.fft.dct(np.eye(SIDE), axis=0, norm="ortho")
    down, across = np.mgrid[:SIDE, :SIDE]
    frequency = np.hypot(down, across)
    chosen = np.argwhere((frequency >= _LOWEST) & (frequency < _HIGHEST))
    return np.stack([np.outer(waves[u], waves[v]).ravel() for u, v in chosen], axis=1).astype(np.float32)


_WAVES = _wave_matrix()


def _waves(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    """The waves of thumbnails at length 1, or 0 without contrast; float32 (n, waves)."""
    waves = thumbnails.astype(np.float32) @ _WAVES
    return _unit(waves, _CONTRAST * SIDE)


def _without(waves: Floats, shared: Floats) -> Floats:
    """Takes away what a set shares; float32 (n, waves) at length 1, or 0 where next to nothing is left."""
    return _unit(waves - (waves @ shared) @ shared.T, _REST) if shared.size else waves


def _unit(rows: npt.NDArray[np.floating], least: float) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths < least, np.float32(0), rows / np.maximum(lengths, least)).astype(np.float32)


def _shared_directions(sample: Floats, rows: int) -> Floats:
    """The directions that are strongest in a set of images; float32 (waves, directions).

    All but the same images count once: many copies of one image must not become what the set shares.
    """
    products = np.triu(sample @ sample.T, 1) > _COPIES
    kept = np.ones(len(sample), bool)
    for row in np.flatnonzero(products.any(axis=0)):
        kept[row] = not (products[:row, row] & kept[:row]).any()
    chosen = sample[kept].astype(np.float64)
    count = min(_DIRECTIONS, len(chosen) // _IMAGES_PER_DIRECTION) if rows >= _SMALL_SET else 0
    vectors = np.linalg.eigh(chosen.T @ chosen)[1]
    return vectors[:, vectors.shape[1] - count :].astype(np.float32)
