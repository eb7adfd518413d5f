"""What was read, what was left out and why, in figures and in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfapp.data.readers.table import counted

_MANY_CLASSES = 10
_SHOWN = 3
MOST_NAMED = 1000
"""How many of the rows that are left out for one reason a report names."""

UNREADABLE = "unreadable: "
"""How the reason begins for which an image was left out that cannot be used."""


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason.

    Attributes:
        split: The split that they came from.
        reason: ``"empty text"``, ``"missing label"``, ``"conflicting labels"``, ``"duplicate"``,
            ``"also in test"`` or ``"also in validation"``; of images also ``"unreadable: ..."``,
            ``"group also in ..."`` and ``"nearly in ..."``, and of those of a source task ``"the target's
            held-out images"`` in place of a split.
        rows: How many.
        examples: Where the first ``MOST_NAMED`` of them stand.
    """

    split: str
    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of images that are all but the same.

    Attributes:
        split: The split of the first of each pair.
        other: The split of the second, the same one for pairs within a split; or the target's held-out
            images.
        pairs: How many.
        examples: The names of the first few pairs.
    """

    split: str
    other: str
    pairs: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ImageSummary:
    """What the images that were read are like.

    Attributes:
        formats: How many images of each format could be read.
        smallest: Width and height of the image with the fewest pixels.
        median: The medians of width and of height.
        largest: Width and height of the image with the most pixels.
        near_duplicates: Near duplicates within and across splits, before any was left out.
    """

    formats: Mapping[str, int]
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    near_duplicates: tuple[NearDuplicates, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Makes plain types, as JSON takes them.

        Returns:
            The attributes by name.
        """
        pairs = [
            {**vars(entry), "examples": [list(pair) for pair in entry.examples]}
            for entry in self.near_duplicates
        ]
        sizes = {name: list(getattr(self, name)) for name in ("smallest", "median", "largest")}
        return {"formats": dict(self.formats), **sizes, "near_duplicates": pairs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageSummary:
        """Makes a summary of what ``to_dict`` returned.

        Args:
            values: The attributes by name.

        Returns:
            The summary.
        """
        pairs = tuple(
            NearDuplicates(**{**entry, "examples": tuple((one, two) for one, two in entry["examples"])})
            for entry in values["near_duplicates"]
        )
        sizes = {name: tuple(values[name]) for name in ("smallest", "median", "largest")}
        return cls(**{**values, **sizes, "near_duplicates": pairs})

    def lines(self) -> list[str]:
        """Words the summary for people.

        Returns:
            A line for formats and sizes, and one for near duplicates within or across splits.
        """
        formats = ", ".join(f"{name} {count:,}" for name, count in self.formats.items())
        small, middle, large = (f"{w:,} x {h:,}" for w, h in (self.smallest, self.median, self.largest))
        lines = [f"{'images':<10} {formats}; {small} to {large} pixels, median {middle}"]
        for entry in self.near_duplicates:
            where = (
                f"within {entry.split}"
                if entry.split == entry.other
                else f"across {entry.split} and {entry.other}"
            )
            examples = "; ".join(" and ".join(map(_short, pair)) for pair in entry.examples[:2])
            more = "; ..." if entry.pairs > 2 else ""
            pairs = counted(entry.pairs, "pair")
            lines.append(f"{'alike':<10} {pairs} of near duplicates {where} ({examples}{more})")
        return lines


@dataclass(frozen=True)
class DataReport:
    """What ``load_text_data`` or ``load_image_data`` read, kept and left out.

    Attributes:
        sources: What was read, for each source.
        rows_read: How many rows each source held.
        rows: How many rows each split has.
        class_counts: How many rows of each class each split has.
        dropped: What was left out.
        images: What the images are like; None for texts.
    """

    sources: Mapping[str, str]
    rows_read: Mapping[str, int]
    rows: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    dropped: tuple[Dropped, ...] = ()
    images: ImageSummary | None = None

    @property
    def duplicates(self) -> int:
        """The number of rows left out because an equal one came before."""
        return self._count("duplicate")

    @property
    def conflicts(self) -> int:
        """The number of rows left out because they stood under several labels."""
        return self._count("conflicting labels")

    @property
    def leaks(self) -> int:
        """The number of rows left out because they also stood in a held-out split."""
        return self._count("also in")

    @property
    def group_leaks(self) -> int:
        """The number of rows left out because a held-out split has rows of their group."""
        return self._count("group also in")

    @property
    def near_leaks(self) -> int:
        """The number of images left out because a held-out split has a near duplicate."""
        return self._count("nearly in")

    @property
    def unreadable(self) -> dict[str, int]:
        """The number of images that could not be used, by reason."""
        counts: dict[str, int] = {}
        for entry in self.dropped:
            if entry.reason.startswith(UNREADABLE):
                reason = entry.reason.removeprefix(UNREADABLE)
                counts[reason] = counts.get(reason, 0) + entry.rows
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Makes plain types of the report, as JSON takes them.

        Returns:
            The attributes by name.
        """
        return {
            "sources": dict(self.sources),
            "rows_read": dict(self.rows_read),
            "rows": dict(self.rows),
            "class_counts": {split: dict(counts) for split, counts in self.class_counts.items()},
            "dropped": [{**vars(entry), "examples": list(entry.examples)} for entry in self.dropped],
        } | ({} if self.images is None else {"images": self.images.to_dict()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataReport:
        """Makes a report of what ``to_dict`` returned.

        Args:
            values: The attributes by name.

        Returns:
            The report.
        """
        dropped = tuple(
            Dropped(**{**entry, "examples": tuple(entry["examples"])}) for entry in values["dropped"]
        )
        images = ImageSummary.from_dict(values["images"]) if "images" in values else None
        return cls(**{**values, "dropped": dropped, "images": images})

    def lines(self, saved: Path | None = None) -> list[str]:
        """Words the report for people.

        Args:
            saved: The file that the report is saved in, to be named where not all rows left out are.

        Returns:
            A line for each split, and each reason for leaving rows out; of images also what they are like.
        """
        lines = [
            f"{'read':<10} {counted(self.rows_read[name], 'row')} from {source}"
            for name, source in self.sources.items()
        ]
        for split, rows in self.rows.items():
            lines.append(f"{split:<10} {counted(rows, 'row')}: {_words_of_counts(self.class_counts[split])}")
        lines += self.images.lines() if self.images else []
        for entry in self.dropped:
            places = entry.examples[:_SHOWN]
            examples = _words_of_places(places if self.images is None else [*map(_short, places)])
            more = f" and {entry.rows - _SHOWN:,} more" if entry.rows > _SHOWN else ""
            left_out = counted(entry.rows, "row")
            lines.append(f"{'left out':<10} {left_out} of {entry.split}, {entry.reason} ({examples}{more})")
        most = max((entry.rows for entry in self.dropped), default=0)
        if saved is not None and most > _SHOWN:
            which = "all of them" if most <= MOST_NAMED else f"the first {MOST_NAMED:,} for each reason"
            lines.append(f"{'':<10} {which} are named in {saved}")
        return lines

    def _count(self, reason: str) -> int:
        return sum(entry.rows for entry in self.dropped if entry.reason.startswith(reason))


def _short(path: str) -> str:
    """Keeps the folders of split and class of a path."""
    return "/".join(path.split("/")[-3:])


def _words_of_places(places: Sequence[str]) -> str:
    """Joins places, naming a file only where it changes."""
    words: list[str] = []
    last = ""
    for place in places:
        file, separator, row = place.rpartition(", ")
        words.append(row if separator and file == last else place)
        last = file
    return ", ".join(words)


def _words_of_counts(counts: Mapping[str, int]) -> str:
    if len(counts) <= _MANY_CLASSES:
        return ", ".join(f"{name} {rows:,}" for name, rows in counts.items())
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return f"{len(counts)} classes, from {counts[fewest]:,} ({fewest}) to {counts[most]:,} ({most}) rows"
