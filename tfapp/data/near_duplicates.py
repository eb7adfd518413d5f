"""What follows from near duplicates: which images are left out, and which belong into one split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, drop_rows
from tfapp.data.clusters import Clusters
from tfapp.data.image_duplicates import Thumbnails, near_pairs
from tfapp.data.image_examination import Examination
from tfapp.data.preparing import LEAKS
from tfapp.data.report import Dropped, NearDuplicates
from tfapp.data.split_data import SPLITS

MOST_EXAMPLES = 5
"""How many pairs are named."""


@dataclass(frozen=True, eq=False)
class NearFindings:
    """Near duplicates among the rows of all sources.

    Attributes:
        report: Their numbers and examples.
        leaking: For pairs of splits a boolean array (rows of the first,): rows with a near duplicate in the
            second.
        clusters: int64 array (rows of train,): the cluster of near duplicates that each row belongs to.
    """

    report: tuple[NearDuplicates, ...]
    leaking: Mapping[tuple[str, str], npt.NDArray[np.bool_]]
    clusters: npt.NDArray[np.int64]


@dataclass
class _Tally:
    pairs: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


def find_near_duplicates(
    rows: Mapping[str, CleanRows], found: Mapping[str, Examination], thumbnails: Thumbnails
) -> NearFindings:
    """Compares every image with every other, within and across splits.

    Args:
        rows: The rows of every source.
        found: What their examination found.
        thumbnails: The thumbnails.

    Returns:
        What was found.
    """
    splits = [split for split in SPLITS if split in rows]
    starts = np.cumsum([0, *(len(rows[split]) for split in splits)])
    owner = np.repeat(np.arange(len(splits)), np.diff(starts))
    places = np.concatenate([found[split].thumbnails[rows[split].positions] for split in splits])
    keys = np.concatenate([rows[split].keys for split in splits])
    tallies: dict[tuple[str, str], _Tally] = {}
    leaking = {pair: np.zeros(len(rows[pair[0]]), bool) for pair in LEAKS if set(pair) <= set(splits)}
    clusters = Clusters(len(rows["train"]))  # train comes first: its positions are the same among all rows
    for left, right in near_pairs(thumbnails, places, keys):
        both = owner[left] * len(splits) + owner[right]
        for pair in (divmod(number, len(splits)) for number in np.unique(both).tolist()):
            chosen = both == pair[0] * len(splits) + pair[1]
            first, second = (splits[number] for number in pair)
            one, two = left[chosen] - starts[pair[0]], right[chosen] - starts[pair[1]]
            tally = tallies.setdefault((first, second), _Tally())
            tally.pairs += len(one)
            missing = MOST_EXAMPLES - len(tally.examples)
            for a, b in zip(one[:missing].tolist(), two[:missing].tolist(), strict=True):
                tally.examples.append((_name(rows[first], a), _name(rows[second], b)))
            if first != second:
                leaking[first, second][one] = True
            elif first == "train":
                clusters.connect(one, two)
    report = tuple(
        NearDuplicates(*pair, tally.pairs, tuple(tally.examples)) for pair, tally in sorted(tallies.items())
    )
    return NearFindings(report, leaking, clusters.labels())


def remove_near_leaks(
    rows: dict[str, CleanRows], findings: NearFindings, dropped: list[Dropped]
) -> tuple[dict[str, CleanRows], npt.NDArray[np.int64]]:
    """Removes rows that are nearly in a split that is held out.

    Args:
        rows: The rows of every source.
        findings: The near duplicates among them.
        dropped: Takes what is removed.

    Returns:
        The rows that are left, and the clusters of those of train.
    """
    left = dict(rows)
    kept = {split: np.ones(len(part), bool) for split, part in rows.items()}
    for split, other in LEAKS:
        if (split, other) not in findings.leaking:
            continue
        leaks = findings.leaking[split, other][kept[split]]
        left[split] = drop_rows(left[split], leaks, split, f"nearly in {other}", dropped)
        kept[split][np.flatnonzero(kept[split])[leaks]] = False
    return left, findings.clusters[kept["train"]]


def _name(rows: CleanRows, row: int) -> str:
    return rows.table.place(int(rows.positions[row]))
