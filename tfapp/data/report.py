"""What was read, what was left out and why, in figures and in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfapp.data.readers.table import counted

_MANY_CLASSES = 10


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason.

    Attributes:
        split: The split that they came from.
        reason: ``"empty text"``, ``"missing label"``, ``"conflicting labels"``, ``"duplicate"``,
            ``"also in test"`` or ``"also in validation"``.
        rows: How many.
        examples: Where the first few of them stand.
    """

    split: str
    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """What ``load_text_data`` read, kept and left out.

    Attributes:
        sources: What was read, for each source.
        rows_read: How many rows each source held.
        rows: How many rows each split has.
        class_counts: How many rows of each class each split has.
        dropped: What was left out.
    """

    sources: Mapping[str, str]
    rows_read: Mapping[str, int]
    rows: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    dropped: tuple[Dropped, ...] = ()

    @property
    def duplicates(self) -> int:
        """The number of rows left out because an equal text came before."""
        return self._count("duplicate")

    @property
    def conflicts(self) -> int:
        """The number of rows left out because their text stood under several labels."""
        return self._count("conflicting labels")

    @property
    def leaks(self) -> int:
        """The number of rows left out because their text also stood in a held-out split."""
        return self._count("also in")

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
        }

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
        return cls(**{**values, "dropped": dropped})

    def lines(self) -> list[str]:
        """Words the report for people.

        Returns:
            A line for each split, and each reason for leaving rows out.
        """
        lines = [
            f"{'read':<10} {counted(self.rows_read[name], 'row')} from {source}"
            for name, source in self.sources.items()
        ]
        for split, rows in self.rows.items():
            lines.append(f"{split:<10} {counted(rows, 'row')}: {_words_of_counts(self.class_counts[split])}")
        for entry in self.dropped:
            examples = _words_of_places(entry.examples[:3]) + (", ..." if entry.rows > 3 else "")
            left_out = counted(entry.rows, "row")
            lines.append(f"{'left out':<10} {left_out} of {entry.split}, {entry.reason} ({examples})")
        return lines

    def _count(self, reason: str) -> int:
        return sum(entry.rows for entry in self.dropped if entry.reason.startswith(reason))


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
