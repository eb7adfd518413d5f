"""What was read, what was left out and why, in figures and in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.readers.table import counted

_MANY_CLASSES = 10
_BERT_POSITIONS = 512


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
class LengthReport:
    """Lengths in tokens, and what a maximum length cuts.

    Attributes:
        rows: The number of texts measured.
        p50: The median length, special tokens included.
        p95: The length that 95 % of the texts do not exceed.
        p99: The length that 99 % of the texts do not exceed.
        longest: The longest text's length.
        max_length: The length at which texts are cut.
        texts_cut: Share of texts that are cut, 0 to 1.
        tokens_cut: Share of all tokens that are cut away, 0 to 1.
    """

    rows: int
    p50: int
    p95: int
    p99: int
    longest: int
    max_length: int
    texts_cut: float
    tokens_cut: float

    def lines(self) -> list[str]:
        """Words the lengths for people.

        Returns:
            One or two lines.
        """
        lines = [
            f"tokens     p50 {self.p50}, p95 {self.p95}, p99 {self.p99}, longest {self.longest}; "
            f"max_length {self.max_length}"
        ]
        if self.texts_cut == 0:
            lines.append("cut        nothing: every text fits")
            return lines
        cut = f"cut        {self.texts_cut:.1%} of the texts, {self.tokens_cut:.1%} of all tokens"
        if self.max_length < _BERT_POSITIONS:
            enough = min(self.longest, _BERT_POSITIONS)
            effect = "nothing" if enough == self.longest else "less"
            cut += f"; max_length = {enough} would cut {effect}, at more time and memory"
        lines.append(cut)
        return lines


@dataclass(frozen=True)
class DataReport:
    """What ``load_text_data`` read, kept and left out.

    Attributes:
        sources: What was read, for each source.
        rows_read: How many rows each source held.
        rows: How many rows each split has.
        class_counts: How many rows of each class each split has.
        dropped: What was left out.
        lengths: Lengths in tokens, once a tokenizer has measured them.
    """

    sources: Mapping[str, str]
    rows_read: Mapping[str, int]
    rows: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    dropped: tuple[Dropped, ...] = ()
    lengths: LengthReport | None = field(default=None)

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

    def with_lengths(self, lengths: LengthReport) -> DataReport:
        """Adds what a tokenizer measured.

        Args:
            lengths: The lengths in tokens.

        Returns:
            A report that holds them.
        """
        return replace(self, lengths=lengths)

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
            "lengths": None if self.lengths is None else dict(vars(self.lengths)),
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
        lengths = None if values["lengths"] is None else LengthReport(**values["lengths"])
        return cls(**{**values, "dropped": dropped, "lengths": lengths})

    def lines(self) -> list[str]:
        """Words the report for people.

        Returns:
            A line for each split, each reason for leaving rows out, and the lengths.
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
        return lines + (self.lengths.lines() if self.lengths else [])

    def _count(self, reason: str) -> int:
        return sum(entry.rows for entry in self.dropped if entry.reason.startswith(reason))


def length_report(lengths: npt.NDArray[np.integer[Any]], max_length: int) -> LengthReport:
    """Measures how long texts are and what a maximum length cuts.

    Args:
        lengths: Integer array (rows,): each text's number of tokens before cutting, special tokens included.
        max_length: The length at which texts are cut.

    Returns:
        Percentiles, and the shares of texts and tokens that are cut.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) == 0:
        return LengthReport(0, 0, 0, 0, 0, max_length, 0.0, 0.0)
    p50, p95, p99 = (int(value) for value in np.percentile(lengths, [50, 95, 99], method="higher"))
    cut = np.maximum(lengths - max_length, 0)
    return LengthReport(
        len(lengths),
        p50,
        p95,
        p99,
        int(lengths.max()),
        max_length,
        float((cut > 0).mean()),
        float(cut.sum() / lengths.sum()),
    )


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
