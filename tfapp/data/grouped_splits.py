"""Stratified splits that keep groups of rows together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tfapp.data.cleaning import CleanRows
from tfapp.data.clusters import join_partitions
from tfapp.data.readers.table import Array, counted, quoted
from tfapp.data.splits import draw_lots, shares, stratified_split
from tfapp.errors import DataError

_logger = logging.getLogger("tfapp")
Ints = npt.NDArray[np.int64]


def few_groups(labels: npt.NDArray[np.integer], groups: Ints, num_classes: int, needed: int) -> Ints:
    """Finds classes whose rows lie in too few groups to be in every split.

    Args:
        labels: Integer array (rows,): class indices.
        groups: int64 array (rows,): the number of each row's group.
        num_classes: How many classes there are.
        needed: How many splits there are.

    Returns:
        int64 array of those classes.
    """
    pairs = np.unique(np.stack([labels.astype(np.int64), groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0], minlength=num_classes) < needed).astype(np.int64)


def check_groups(
    labels: npt.NDArray[np.integer], groups: Ints, classes: Sequence[str], splits: Sequence[str]
) -> None:
    """Refuses classes whose rows lie in too few groups to be in every split.

    Args:
        labels: Integer array (rows,): class indices.
        groups: int64 array (rows,): the number of each row's group.
        classes: The class names.
        splits: The splits that must have each class.

    Raises:
        DataError: If there is such a class.
    """
    few = few_groups(labels, groups, len(classes), len(splits))
    if len(few):
        listed = ", ".join(
            f"{classes[number]!r} ({counted(len(np.unique(groups[labels == number])), 'group')})"
            for number in few[:10].tolist()
        )
        raise DataError(
            f"{counted(len(few), 'class', 'classes')} in fewer than {len(splits)} groups, one each for "
            f"{', '.join(splits)}: {listed}{' ...' if len(few) > 10 else ''}. Add groups, merge or remove "
            "these classes, or give the splits as sources of their own."
        )


def grouped_split(
    keys: Sequence[str] | Array,
    labels: npt.NDArray[np.integer],
    groups: Ints,
    fractions: Mapping[str, float],
    *,
    seed: int,
) -> dict[str, Ints]:
    """Draws splits that keep groups together and in which every class has its share as nearly as they allow.

    Large groups are placed first, in the order of their lots, each where its classes are most wanting; rows
    that are groups by themselves then fill up every class. A group's lot is a hash of the seed and the least
    of its keys: another order of the same rows draws the same rows.

    Args:
        keys: Sequence (rows,) of different strings.
        labels: Integer array (rows,): class indices from 0; every class is in ``1 + len(fractions)`` groups
            or more.
        groups: int64 array (rows,): the number of each row's group.
        fractions: For each split to draw, its share of all rows; they sum to less than 1.
        seed: Any integer.

    Returns:
        For each split, and ``"train"`` for the rest, the ascending positions of its rows.

    Raises:
        DataError: If groups of several classes leave a split without one of them.
    """
    counts = np.bincount(labels)
    drawn = shares(counts, fractions)
    names = [*drawn, "train"]
    wanted = np.stack([*drawn.values(), counts - sum(drawn.values())]).astype(np.float64)
    drawing = _Drawing(np.asarray(keys, dtype=object), labels, groups, wanted, seed)
    drawing.place_groups()
    drawing.place_single_rows()
    drawing.repair(names)
    return {name: np.flatnonzero(drawing.split_of == number) for number, name in enumerate(names)}


def draw_splits(
    rows: CleanRows,
    labels: npt.NDArray[np.int32],
    clusters: Ints | None,
    classes: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, Ints]:
    """Draws the splits of rows, keeping their groups and clusters together.

    Args:
        rows: The rows, which know their groups.
        labels: int32 array (rows,): class indices.
        clusters: int64 array (rows,): the cluster of near duplicates that each row is in, or None. Clusters
            that leave a class too few groups to be in every split are taken apart, with a warning.
        classes: The class names.
        fractions: For each split to draw, its share of all rows.
        seed: Any integer.

    Returns:
        For each split, and ``"train"`` for the rest, the ascending positions of its rows.

    Raises:
        DataError: If the groups leave a split without a class.
    """
    splits = ["train", *fractions]
    alone = np.arange(len(rows), dtype=np.int64)
    groups = alone
    if rows.groups is not None:
        codes = pd.factorize(rows.groups)[0].astype(np.int64)
        groups = np.where(codes < 0, len(rows) + alone, codes)
        check_groups(labels, groups, classes, splits)
    if clusters is not None:
        joined = join_partitions([groups, clusters])
        few = few_groups(labels, joined, len(classes), len(splits))
        if len(few):
            _logger.warning(
                "near duplicates of %s may stand in several splits: they leave too few groups to have each "
                "class in every split",
                quoted([classes[number] for number in few.tolist()], 5),
            )
            separate = np.where(np.isin(labels, few), len(rows) + alone, clusters)
            joined = join_partitions([groups, separate])
        groups = joined
    if len(np.unique(groups)) == len(rows):
        return stratified_split(rows.keys, labels, fractions, seed=seed)
    return grouped_split(rows.keys, labels, groups, fractions, seed=seed)


class _Drawing:
    """The splits while they are drawn."""

    def __init__(
        self,
        keys: Array,
        labels: npt.NDArray[np.integer],
        groups: Ints,
        wanted: npt.NDArray[np.float64],
        seed: int,
    ) -> None:
        by_key = np.argsort(keys.astype(str), kind="stable")
        _, first, inverse = np.unique(groups[by_key], return_index=True, return_inverse=True)
        group = np.empty(len(keys), np.int64)
        group[by_key] = inverse
        self.lots = draw_lots(keys[by_key[first]], seed)
        self.labels, self.group, self.wanted = labels, group, wanted
        self.need = wanted.copy()
        sizes = np.bincount(group)
        self.rows_of = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
        self.large = sorted(np.flatnonzero(sizes > 1).tolist(), key=lambda g: (-sizes[g], self.lots[g]))
        self.single = sizes[group] == 1
        self.split_of = np.full(len(keys), -1, np.int64)

    def place_groups(self) -> None:
        """Places the groups of several rows."""
        for number in self.large:
            rows = self.rows_of[number]
            classes, sizes = np.unique(self.labels[rows], return_counts=True)
            gain = (sizes**2 - 2 * self.need[:, classes] * sizes) / np.maximum(self.wanted[:, classes], 1)
            self._move(rows, int(np.argmin(gain.sum(axis=1))))

    def place_single_rows(self) -> None:
        """Places the rows that are groups by themselves, class by class in the order of their lots."""
        rows = np.flatnonzero(self.single)
        rows = rows[np.lexsort((self.lots[self.group[rows]], self.labels[rows]))]
        for number in np.unique(self.labels[rows]).tolist():
            of_class = rows[self.labels[rows] == number]
            need = np.maximum(self.need[:, number], 0)
            ends = np.round(np.cumsum(need) * min(1.0, len(of_class) / max(need.sum(), 1))).astype(np.int64)
            for split, part in enumerate(np.split(of_class, ends[:-1])):
                self._move(part, split)

    def repair(self, names: Sequence[str]) -> None:
        """Moves groups into splits that have no row of a class, from splits that can spare them."""
        held = np.zeros(self.wanted.shape, np.int64)
        np.add.at(held, (self.split_of, self.labels), 1)
        for split, number in np.argwhere(held == 0)[::-1].tolist():  # the last split is train
            for group in self._smallest_with(number):
                rows = self.rows_of[group]
                source = int(self.split_of[rows[0]])
                classes, sizes = np.unique(self.labels[rows], return_counts=True)
                if source != split and (held[source, classes] > sizes).all():
                    held[source, classes] -= sizes
                    held[split, classes] += sizes
                    self._move(rows, split)
                    break
            else:
                raise DataError(
                    "no split can be drawn that keeps the groups together and has every class in "
                    f"{names[split]}: groups hold rows of several classes. Give the splits as sources of "
                    "their own, or try another seed."
                )

    def _smallest_with(self, number: int) -> list[int]:
        found = np.unique(self.group[self.labels == number]).tolist()
        return sorted(found, key=lambda group: (len(self.rows_of[group]), self.lots[group]))

    def _move(self, rows: Ints, split: int) -> None:
        self.split_of[rows] = split
        self.need[split] -= np.bincount(self.labels[rows], minlength=self.need.shape[1])
