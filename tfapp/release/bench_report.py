"""What a benchmark of a release found, for people and programs to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfapp.evaluation.report import write_whole
from tfapp.release.verifying import NOT_PROVEN

_NONE = "-"
_PICTURES = ("accuracy-latency.png", "accuracy-latency.svg")


@dataclass(frozen=True)
class Timing:
    """Calls with one number of threads and rows.

    Attributes:
        threads: Threads that the runtime was given.
        batch: Rows of a call.
        calls: Calls timed.
        p50: Milliseconds within which half of them were done; None where there are none.
        p95: The same of 95 in a hundred.
        p99: The same of 99 in a hundred.
        peak_bytes: The most memory that the process had resident until then; None where the system does
            not tell.
        reason: Why there are no calls; None when there are.
    """

    threads: int
    batch: int
    calls: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    peak_bytes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ArtifactBench:
    """What was measured of one artifact.

    Attributes:
        variant: Its variant.
        path: Where it lies in the release.
        bytes: Its size.
        accuracy: Share of right answers, from 0 to 1; None where it was not measured.
        takes: What it was asked with: ``"text"``, ``"image file"``, ``"token ids"`` or ``"pixels"``.
        takes_features: Whether that is the raw feature, so that times are from there to a class name.
        start_s: Seconds from the start of a process with the fewest threads to its first answer, while the
            system still holds its files in memory; the faster of two.
        timings: A measure for each number of threads and rows.
        error: Why it could not be measured; None when it could.
    """

    variant: str
    path: str
    bytes: int
    accuracy: float | None
    takes: str
    takes_features: bool
    start_s: float | None
    timings: tuple[Timing, ...] = ()
    error: str | None = None

    @property
    def single(self) -> Timing | None:
        """Its calls with the fewest threads and rows; None where there are none."""
        timed = [timing for timing in self.timings if timing.p50 is not None]
        return min(timed, key=lambda timing: (timing.threads, timing.batch), default=None)


@dataclass(frozen=True)
class BenchReport:
    """A benchmark of a release.

    Attributes:
        name: The release's name.
        version: Its version; None when it was refused.
        tfapp_version: The version that measured.
        machine: What it was measured on: ``processor``, ``cores``, ``system`` and ``load_before``, the
            processes that were busy before.
        asked: What artifacts were asked about.
        accuracy_on: What accuracies were measured on.
        artifacts: What was measured of each.
        origin_proven: Whether the release is the one whose manifest was asked for.
    """

    name: str
    version: int | None
    tfapp_version: str
    machine: dict[str, Any]
    asked: str
    accuracy_on: str
    artifacts: tuple[ArtifactBench, ...]
    origin_proven: bool = False

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version or '(refused)'}"

    @property
    def best(self) -> tuple[str, ...]:
        """The variants that no other beats in both accuracy and the median time of single calls."""
        points = {
            each.variant: (each.accuracy, each.single.p50)
            for each in self.artifacts
            if each.accuracy is not None and each.single is not None and each.single.p50 is not None
        }
        return best_front(points)

    @property
    def errors(self) -> list[str]:
        """A sentence for each artifact that could not be measured."""
        return [f"{each.variant}: {each.error}" for each in self.artifacts if each.error is not None]

    def summary(self) -> list[dict[str, str]]:
        """Returns a row for each artifact, for people to read."""
        best = self.best
        return [
            {
                "artifact": each.variant,
                "asked with": _NONE if each.error else each.takes,
                "MB": f"{each.bytes / 1e6:.1f}",
                "accuracy": _number(each.accuracy, ".4f"),
                "p50 ms": _number(None if each.single is None else each.single.p50, ".2f"),
                "start s": _number(each.start_s, ".2f"),
                "peak MB": _megabytes(None if each.single is None else each.single.peak_bytes),
                "best": "*" if each.variant in best else "",
            }
            for each in self.artifacts
        ]

    def latencies(self) -> list[dict[str, str]]:
        """Returns a row for each artifact, number of rows and number of threads, for people to read."""
        rows: list[dict[str, str]] = []
        for each in self.artifacts:
            for timing in sorted(each.timings, key=lambda timing: (timing.batch, timing.threads)):
                seconds = None if timing.p50 is None else timing.p50 / 1e3
                row = {
                    "artifact": each.variant,
                    "rows": f"{timing.batch}",
                    "threads": f"{timing.threads}",
                    "p50 ms": _number(timing.p50, ".2f"),
                    "p95 ms": _number(timing.p95, ".2f"),
                    "p99 ms": _number(timing.p99, ".2f"),
                    "rows/s": _number(seconds and timing.batch / seconds, ",.0f"),
                    "peak MB": _megabytes(timing.peak_bytes),
                    "calls": f"{timing.calls or _NONE}",
                    "": timing.reason or "",
                }
                if timing.reason and rows and {**rows[-1], "threads": row["threads"]} == row:
                    row["threads"] = f"{rows.pop()['threads']}, {row['threads']}"
                rows.append(row)
        return rows

    def notes(self) -> list[str]:
        """Returns what the tables leave open, a sentence each."""
        raw = "text" if any(each.takes in ("text", "token ids") for each in self.artifacts) else "image file"
        tensors = "token ids" if raw == "text" else "pixels"
        lines = [
            f"Asked about {self.asked}; accuracy on {self.accuracy_on}.",
            f"Times are from {raw} to class name where an artifact takes that, and from {tensors} where not: "
            f"what makes {tensors} of {raw}s is then not in them.",
            "A start is that of a new process while the system holds its files in memory; after a reboot it "
            "takes longer.",
        ]
        if not self.origin_proven:
            lines.append(f"{self.title}: {NOT_PROVEN}.")
        calls = [timing.calls for each in self.artifacts for timing in each.timings if timing.calls]
        few = min(calls, default=100)
        if few < 100:
            lines.append(
                f"Where fewer than 100 calls were made (here {few} or more), p99 is nearly the slowest."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, as JSON takes it."""
        best = self.best
        return {
            "schema_version": 1,
            **{name: value for name, value in asdict(self).items() if name != "artifacts"},
            "artifacts": [{**asdict(each), "best": each.variant in best} for each in self.artifacts],
        }

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Writes ``bench.json``, and the plot as ``accuracy-latency.png`` and ``.svg``.

        Pictures of an earlier benchmark are removed where there is nothing to draw.

        Args:
            folder: Where to; it is made when it is not there.

        Returns:
            What was written: ``bench.json``, and the pictures if there are any.
        """
        from tfapp.release.bench_figure import draw_front

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        path, pictures = target / "bench.json", tuple(target / name for name in _PICTURES)
        content = json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"
        write_whole(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))
        if any(each.single is not None and each.accuracy is not None for each in self.artifacts):
            draw_front(self, pictures)
            return path, *pictures
        for picture in pictures:
            picture.unlink(missing_ok=True)
        return (path,)


def best_front(points: dict[str, tuple[float, float]]) -> tuple[str, ...]:
    """Finds the points that no other beats: the Pareto front.

    Args:
        points: By name, what should be large and what should be small.

    Returns:
        The names of those of which no other is as good in both and better in one, the smallest first.
    """

    def beaten(point: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
        return any(other[0] >= point[0] and other[1] <= point[1] and other != point for other in others)

    kept = [name for name, point in points.items() if not beaten(point, list(points.values()))]
    return tuple(sorted(kept, key=lambda name: points[name][1]))


def _number(value: float | None, form: str) -> str:
    return _NONE if value is None else format(value, form)


def _megabytes(value: int | None) -> str:
    return _NONE if value is None else f"{value / 1e6:.0f}"
