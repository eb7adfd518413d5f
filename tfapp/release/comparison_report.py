"""What a comparison of two releases found: tables for people, JSON, and the list of changed examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfapp.csv_text import csv_text
from tfapp.disk import writing
from tfapp.evaluation.metrics import CONFIDENCE_LEVEL, Interval
from tfapp.evaluation.paired_rows import PairedAccuracy
from tfapp.evaluation.report import write_whole

_SHOWN = 10
_LETTERS = 70
_SIGNIFICANT = 0.05

Differing = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class ChangedExample:
    """A row that two releases label differently.

    Attributes:
        row: Its number among the rows, from 0.
        feature: The text, or the name of the image.
        label: Its true class, or None where it has none.
        before: What the first release says.
        after: What the second says.
        before_probability: How sure the first is of that.
        after_probability: How sure the second is.
    """

    row: int
    feature: str
    label: str | None
    before: str
    after: str
    before_probability: float
    after_probability: float

    @property
    def outcome(self) -> str:
        """Whether it was repaired, broken, or is wrong both times; empty without a true class."""
        if self.label is None:
            return ""
        return {self.before: "broken", self.after: "repaired"}.get(self.label, "still wrong")


@dataclass(frozen=True)
class ReleaseComparison:
    """How two releases differ.

    Attributes:
        before: The first: ``title``, ``directory``, ``name``, ``version``, ``verdict``, ``manifest_sha256``,
            ``origin_proven``.
        after: The second.
        variant: The artifact that both were asked through.
        source: Which rows they were asked about.
        rows: How many.
        accuracy: Their accuracies and the difference; None for rows without labels.
        changed: The rows whose label changed.
        settings: What differs in ``config``, ``data`` and ``libraries``: both values by dotted name.
        artifacts: For each variant pairs of ``bytes``, ``accuracy``, ``robust_accuracy`` and ``p50_ms``.
        notes: What to keep in mind, a sentence each.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    variant: str
    source: str
    rows: int
    accuracy: PairedAccuracy | None
    changed: tuple[ChangedExample, ...]
    settings: dict[str, Differing]
    artifacts: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        share = f"{len(self.changed):,} of {self.rows:,} labels changed"
        if self.accuracy is None:
            return f"{share}."
        found = self.accuracy
        moved = f"{100 * found.difference.value:+.2f} points {_points(found.difference)}"
        test = f"McNemar p = {found.p_value:.3g}"
        if found.p_value < _SIGNIFICANT:
            return f"{share}; accuracy moved by {moved}, {test}."
        return f"{share}; no difference in accuracy shows on these rows: {moved}, {test}."

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Returns titles and rows of tables, for people to read; empty ones are left out."""
        made = [
            (f"answers of {self.variant} to {self.source}", self._answers()),
            (f"changed labels{self._of_all()}", self._examples()),
            ("artifacts, before -> after", self._artifact_rows()),
            ("made from", self._settings_rows()),
        ]
        return [(title, rows) for title, rows in made if rows]

    def lines(self) -> list[str]:
        """Returns the outcome and the notes as lines of text."""
        return [f"{self.before['title']} -> {self.after['title']}: {self.verdict}", *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison, ready for JSON."""
        return {
            "before": self.before,
            "after": self.after,
            "verdict": self.verdict,
            "variant": self.variant,
            "source": self.source,
            "rows": self.rows,
            "changed": len(self.changed),
            "accuracy": None if self.accuracy is None else self.accuracy.to_dict(),
            "changed_examples": [{**asdict(example), "outcome": example.outcome} for example in self.changed],
            "differences": {
                part: {key: {"before": old, "after": new} for key, (old, new) in found.items()}
                for part, found in self.settings.items()
            },
            "artifacts": self.artifacts,
            "notes": list(self.notes),
        }

    def save(self, directory: str | Path, *, bom: bool = False) -> Path:
        """Writes ``diff.json``, and ``changed.csv`` with a line for each row whose label changed.

        Args:
            directory: The folder; it is made if it does not exist.
            bom: Whether the CSV file begins with a byte order mark, by which Excel takes it for UTF-8.

        Returns:
            The folder.

        Raises:
            OutputError: When it cannot be written.
        """
        folder = Path(directory).expanduser().absolute()
        content = json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"
        columns = ("row", "outcome", "label", "before", "before_probability", "after", "after_probability")
        lines = [
            [*(getattr(example, column) for column in columns), example.feature] for example in self.changed
        ]
        table = csv_text([*columns, "example"], lines, bom=bom)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "diff.json", lambda path: path.write_text(content, encoding="utf-8"))
            write_whole(folder / "changed.csv", lambda path: path.write_text(table, encoding="utf-8"))
        return folder

    def _answers(self) -> list[dict[str, str]]:
        found = self.accuracy
        rows = [{"": "labels changed", " ": f"{len(self.changed):,} of {self.rows:,}"}]
        if found is None:
            return rows
        level = f"{CONFIDENCE_LEVEL:.0%} interval"
        figures = {
            f"accuracy of {self.before['title']}": f"{found.before} ({level})",
            f"accuracy of {self.after['title']}": f"{found.after} ({level})",
            "difference, in points": f"{100 * found.difference.value:+.2f} {_points(found.difference)}",
            "only the first is right": f"{found.only_before:,} rows",
            "only the second is right": f"{found.only_after:,} rows",
            "McNemar's exact test": f"p = {found.p_value:.3g}",
        }
        return rows + [{"": key, " ": value} for key, value in figures.items()]

    def _of_all(self) -> str:
        most = len(self.changed)
        return f", the first {_SHOWN} of {most:,}" if most > _SHOWN else ""

    def _examples(self) -> list[dict[str, str]]:
        return [
            {
                "row": f"{example.row:,}",
                "": example.outcome,
                "before": f"{example.before} {example.before_probability:.2f}",
                "after": f"{example.after} {example.after_probability:.2f}",
                "example": _shortened(example.feature),
            }
            for example in self.changed[:_SHOWN]
        ]

    def _artifact_rows(self) -> list[dict[str, str]]:
        return [
            {
                "artifact": row["variant"],
                "MB": _arrow(row["bytes"], 1e-6, ".1f"),
                "accuracy": _arrow(row["accuracy"], 1, ".4f"),
                "robust": _arrow(row["robust_accuracy"], 1, ".4f"),
                "p50 ms": _arrow(row["p50_ms"], 1, ".2f"),
            }
            for row in self.artifacts
        ]

    def _settings_rows(self) -> list[dict[str, str]]:
        return [
            {"": f"{part}.{key}", "before": _shortened(_word(old)), "after": _shortened(_word(new))}
            for part, found in self.settings.items()
            for key, (old, new) in found.items()
        ]


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Differing:
    """Compares nested settings.

    Args:
        before: The first.
        after: The second.

    Returns:
        Both values of what differs, by dotted name; None where one does not have it.
    """
    first, second = dict(_flat(before)), dict(_flat(after))
    return {
        key: (first.get(key), second.get(key))
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _points(interval: Interval) -> str:
    return f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"


def _arrow(pair: list[float | None], factor: float, form: str) -> str:
    shown = ["-" if value is None else format(value * factor, form) for value in pair]
    return shown[0] if shown[0] == shown[1] else " -> ".join(shown)


def _word(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LETTERS else f"{line[: _LETTERS - 1]}\u2026"
