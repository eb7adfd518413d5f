"""What transfer was worth: each way of training beside the others, on the same test rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfapp.errors import DataError, OutputError
from tfapp.evaluation.calibration import IntArray
from tfapp.evaluation.metrics import CONFIDENCE_LEVEL, Interval
from tfapp.evaluation.paired import resampled_accuracy
from tfapp.evaluation.report import table_lines, write_whole

WAYS = ("from scratch", "frozen", "fine-tuned", "joint")
"""Ways of training: random weights, the head only, all phases, all phases with the source beside."""

_BASELINES = {"frozen": WAYS[:1], "fine-tuned": WAYS[:1], "joint": ("from scratch", "fine-tuned")}


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one way of training answered, with each seed.

    Attributes:
        way: One of `WAYS`.
        trained: How it was trained, in a few words.
        predicted: Predicted classes of the target's test rows, ``(seeds, rows)``.
        source_before: Predicted classes of the source's test rows by a linear head on the pretrained
            features, ``(seeds, source rows)``; None where the way has nothing to forget.
        source_after: The same after training, by that head, or by the head that was trained beside.
        alphas: The source's weight with each seed; empty without a source.
    """

    way: str
    trained: str
    predicted: IntArray
    source_before: IntArray | None = None
    source_after: IntArray | None = None
    alphas: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One way of training against another, on the same rows with the same seeds.

    Attributes:
        way: What is judged.
        baseline: What it is compared with.
        difference: Accuracy of the way minus that of the baseline, with its paired bootstrap interval.
    """

    way: str
    baseline: str
    difference: Interval

    @property
    def verdict(self) -> str:
        """``"helped"``, ``"hurt"``, or ``"did not"`` (help) where the interval holds 0."""
        if self.difference.low > 0.0:
            return "helped"
        return "hurt" if self.difference.high < 0.0 else "did not"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the verdict, ready for JSON."""
        return {
            "way": self.way,
            "baseline": self.baseline,
            "difference": self.difference.to_dict(),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class LedgerRow:
    """The scores of one way of training, means over the seeds.

    Attributes:
        way: One of `WAYS`.
        trained: How it was trained, in a few words.
        accuracy: On the target's test rows.
        balanced_accuracy: Mean recall of the classes that have rows.
        source_before: Accuracy on the source's test rows before; None where there is nothing to forget.
        source_after: The same after training.
        forgot: What the source task lost, before minus after, with its paired interval.
        alphas: The source's weight with each seed; empty without a source.
    """

    way: str
    trained: str
    accuracy: Interval
    balanced_accuracy: Interval
    source_before: Interval | None
    source_after: Interval | None
    forgot: Interval | None
    alphas: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, ready for JSON."""
        names = ("accuracy", "balanced_accuracy", "source_before", "source_after", "forgot")
        scores = {name: getattr(self, name) for name in names}
        return {
            "way": self.way,
            "trained": self.trained,
            **{name: None if score is None else score.to_dict() for name, score in scores.items()},
            "alphas": list(self.alphas),
        }


@dataclass(frozen=True)
class TransferLedger:
    """What each way of training is worth, and what it forgot.

    Attributes:
        rows: One for each way that was trained.
        comparisons: Against training from scratch, and joint against fine-tuned.
        test_rows: Test rows of the target.
        source_rows: Test rows of the source; 0 without one.
        seeds: The seeds that all were trained with.
        num_bootstrap: Resamples behind each interval.
    """

    rows: tuple[LedgerRow, ...]
    comparisons: tuple[Comparison, ...]
    test_rows: int
    source_rows: int
    seeds: tuple[int, ...]
    num_bootstrap: int

    def verdict(self, way: str, baseline: str = "from scratch") -> str:
        """Tells whether a way of training helped.

        Args:
            way: The way to judge.
            baseline: What it is compared with.

        Returns:
            ``"helped"``, ``"did not"`` or ``"hurt"``.

        Raises:
            DataError: When the two were not compared.
        """
        for comparison in self.comparisons:
            if (comparison.way, comparison.baseline) == (way, baseline):
                return comparison.verdict
        raise DataError(f"the ledger does not compare {way!r} with {baseline!r}.")

    def lines(self) -> list[str]:
        """Words the ledger for people, one string a line."""
        header, *body = self._cells()
        what = "rows and seeds" if len(self.seeds) > 1 else "rows"
        lines = [
            f"transfer ledger: {self.test_rows:,} test rows, seeds {', '.join(map(str, self.seeds))}",
            "",
        ]
        lines += table_lines(header, body)
        lines += ["", f"against (difference of accuracy [{CONFIDENCE_LEVEL:.0%} interval, resampled {what}])"]
        lines += [
            f"  {item.way} against {item.baseline}: {item.verdict}, {_signed(item.difference)}"
            for item in self.comparisons
        ]
        return lines

    def table(self) -> str:
        """Sets the ledger as a Markdown table."""
        header, *body = self._cells()
        verdicts = {
            way: "; ".join(
                f"{item.verdict} ({item.baseline})" for item in self.comparisons if item.way == way
            )
            for way in WAYS
        }
        rows = [(*header, "verdict (against)"), ("---",) * (len(header) + 1)]
        rows += [(*cells, verdicts[cells[0]]) for cells in body]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _cells(self) -> list[tuple[str, ...]]:
        header = ["way", "trained", "accuracy", "balanced accuracy"]
        if self.source_rows:
            header += ["source before", "after", "forgot"]
        body = []
        for row in self.rows:
            cells = [row.way, row.trained, str(row.accuracy), str(row.balanced_accuracy)]
            if self.source_rows:
                values = [None if it is None else it.value for it in (row.source_before, row.source_after)]
                cells += ["-" if value is None else f"{value:.4f}" for value in values]
                cells.append("-" if row.forgot is None else _signed(row.forgot))
            body.append(tuple(cells))
        return [tuple(header), *body]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain values, ready for JSON."""
        return {
            "test_rows": self.test_rows,
            "source_rows": self.source_rows,
            "seeds": list(self.seeds),
            "interval": {"level": CONFIDENCE_LEVEL, "num_bootstrap": self.num_bootstrap},
            "rows": [row.to_dict() for row in self.rows],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes ``ledger.json`` and ``ledger.md``, each of them whole or not at all.

        Args:
            directory: The folder; it is made if it does not exist.

        Returns:
            The folder.

        Raises:
            OutputError: A file cannot be written.
        """
        folder = Path(directory)
        content = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "ledger.json", lambda path: path.write_text(content, encoding="utf-8"))
            table = self.table() + "\n"
            write_whole(folder / "ledger.md", lambda path: path.write_text(table, encoding="utf-8"))
        except OSError as error:
            raise OutputError(f"{folder}: the ledger cannot be written there ({error})") from error
        return folder


def make_ledger(
    outcomes: Sequence[Outcome],
    labels: IntArray,
    *,
    source_labels: IntArray | None = None,
    seeds: Sequence[int] = (0,),
    num_bootstrap: int = 1000,
) -> TransferLedger:
    """Computes scores, intervals and verdicts from what each way answered.

    One set of resamples of the test rows, and with several seeds of the seeds too, serves all ways, so that
    differences are paired. With one seed the intervals say nothing about other seeds.

    Args:
        outcomes: The answers of each way.
        labels: True classes of the target's test rows, ``(rows,)``.
        source_labels: True classes of the source's test rows, or None without a source.
        seeds: The seeds of the outcomes.
        num_bootstrap: Resamples, at least 1.

    Returns:
        The ledger.
    """
    scores = {
        outcome.way: resampled_accuracy(outcome.predicted, labels, num_bootstrap) for outcome in outcomes
    }
    rows = []
    for outcome in outcomes:
        accuracy, balanced = scores[outcome.way]
        before, after = (
            None
            if source_labels is None or answers is None
            else resampled_accuracy(answers, source_labels, num_bootstrap)
            for answers in (outcome.source_before, outcome.source_after)
        )
        rows.append(
            LedgerRow(
                way=outcome.way,
                trained=outcome.trained,
                accuracy=accuracy.interval(0.0, 1.0),
                balanced_accuracy=balanced.interval(0.0, 1.0),
                source_before=None if before is None else before[0].interval(0.0, 1.0),
                source_after=None if after is None else after[0].interval(0.0, 1.0),
                forgot=None if before is None or after is None else (before[0] - after[0]).interval(),
                alphas=outcome.alphas,
            )
        )
    comparisons = [
        Comparison(way, baseline, (scores[way][0] - scores[baseline][0]).interval())
        for way, baselines in _BASELINES.items()
        for baseline in baselines
        if way in scores and baseline in scores
    ]
    count = 0 if source_labels is None else len(source_labels)
    return TransferLedger(tuple(rows), tuple(comparisons), len(labels), count, tuple(seeds), num_bootstrap)


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
