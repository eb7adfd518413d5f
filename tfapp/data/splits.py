"""Stratified splits that depend on the seed and the content, not on the order of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfapp.data.readers.table import Array
from tfapp.errors import DataError


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Refuses fractions that leave a split, or the training rows, empty.

    Args:
        fractions: For each split that is to be drawn, its share of the rows.

    Raises:
        DataError: If a fraction is not between 0 and 1, or they leave nothing.
    """
    for split, fraction in fractions.items():
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise DataError(
                f"{split}_fraction={fraction!r} must lie between 0 and 1, both excluded; "
                f"pass {split}=... to give that split as a file."
            )
    if sum(fractions.values()) >= 1 - 1e-9:
        named = " + ".join(f"{split}_fraction" for split in fractions)
        raise DataError(
            f"{named} is {sum(fractions.values()):g} and leaves no rows for training; it must be below 1."
        )


def stratified_split(
    keys: Sequence[str] | Array, labels: npt.NDArray[np.integer], fractions: Mapping[str, float], *, seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Draws splits in which every class has its share.

    A row's lot is a hash of the seed and its key: another order of the same rows draws the same texts, and
    so does another machine.

    Args:
        keys: Sequence (rows,) of different texts.
        labels: Integer array (rows,): class indices from 0; every class has ``1 + len(fractions)`` rows or
            more.
        fractions: For each split to draw, its share of all rows; they sum to less than 1.
        seed: Any integer.

    Returns:
        For each split, and ``"train"`` for the rest, the ascending positions of its rows.
    """
    lots = draw_lots(keys, seed)
    counts = np.bincount(labels)
    order = np.lexsort((lots, labels))
    starts = np.concatenate([[0], np.cumsum(counts)])
    taken = np.zeros(len(counts), np.int64)
    drawn: dict[str, npt.NDArray[np.int64]] = {}
    for split, share in shares(counts, fractions).items():
        parts = [order[start + t : start + t + n] for start, t, n in zip(starts, taken, share, strict=False)]
        drawn[split] = np.sort(np.concatenate(parts))
        taken += share
    rest = [order[start + t : start + n] for start, t, n in zip(starts, taken, counts, strict=False)]
    return {"train": np.sort(np.concatenate(rest)), **drawn}


def shares(
    counts: npt.NDArray[np.integer], fractions: Mapping[str, float]
) -> dict[str, npt.NDArray[np.int64]]:
    """Apportions the rows of each class to the splits that are to be drawn.

    Args:
        counts: Integer array (classes,): rows of each class.
        fractions: For each split to draw, its share of all rows.

    Returns:
        For each of them an int64 array (classes,): the rows to draw; one is left for training.
    """
    taken = np.zeros(len(counts), np.int64)
    apportioned = {}
    for number, (split, fraction) in enumerate(fractions.items()):
        reserved = len(fractions) - number  # one row for each later split and for training
        apportioned[split] = apportion(counts, fraction, largest=counts - taken - reserved)
        taken += apportioned[split]
    return apportioned


def apportion(
    counts: npt.NDArray[np.integer], fraction: float, *, largest: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """Apportions a share of all rows to the classes by largest remainders, at least one row to each.

    Args:
        counts: Integer array (classes,): rows of each class.
        fraction: The share, between 0 and 1.
        largest: Integer array (classes,): the most rows that may be taken of each class, at least 1.

    Returns:
        Integer array (classes,): rows to take of each class. Each differs from its exact share by less than
        one row, unless the limits force it.
    """
    exact = counts * fraction
    share = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(float(counts.sum() * fraction)) - int(share.sum())
    by_remainder = np.argsort(-(exact - share), kind="stable")
    share[by_remainder[: max(missing, 0)]] += 1
    limited: npt.NDArray[np.int64] = np.clip(share, 1, largest.astype(np.int64))
    return limited


def draw_lots(keys: Sequence[str] | Array, seed: int) -> npt.NDArray[np.uint64]:
    """Draws a number for each key from the seed and the key alone.

    Args:
        keys: Sequence (rows,) of texts.
        seed: Any integer.

    Returns:
        Array (rows,) of numbers that are the same in every process and on every machine.
    """
    secret = hashlib.sha256(str(seed).encode()).digest()
    blake = hashlib.blake2b
    digests = b"".join(blake(key.encode("utf-8"), digest_size=8, key=secret).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
