"""``tfapp bench``: how fast, how small and how right each artifact of a release is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from tfapp import terminal
from tfapp.commands._options import debug_option, manifest_option


class _Counts(click.ParamType[list[int]]):
    """Numbers, such as 1,8."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Reads what the user gave."""
        if isinstance(value, list):
            return value
        try:
            return [int(number) for number in re.split(r"[,\s]+", str(value).strip(" ,"))]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,8", param, ctx)


@click.command(short_help="Measure every artifact of a release: latency, memory, size, accuracy.")
@click.argument("release", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="Labelled rows to ask about and to measure accuracy on."
)
@click.option("--column", help="Column of the texts or paths in --data; as the release's workflow has it.")
@click.option("--label", help="Column of the labels in --data; as the release's workflow has it.")
@click.option("--threads", type=_Counts(), help="Numbers of threads; 1,2 by default.")
@click.option("--batches", type=_Counts(), default="1,8", show_default=True, help="Rows of a call.")
@click.option("--calls", type=click.IntRange(1), default=200, show_default=True, help="Most calls to time.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of JSON and plot; bench-<name> by default."
)
@manifest_option
@debug_option
def bench(release: Path, output: Path | None, column: str | None, label: str | None, **options: Any) -> None:
    """Measure every artifact of a release: latency, start, memory, size and accuracy.

    Each runs alone in a fresh process with nothing but its runtime. Without --data, the release's golden
    vectors are asked about, and accuracies are those of the manifest. A setting ends after --calls calls, or
    after 4 seconds if there are 10. bench.json and a plot of accuracy against latency are written. Artifacts
    are programs: without --manifest-sha256, nothing proves whose they are.

    Exit status: 0 measured, 1 an artifact could not be run, 2 bad input or settings, 3 interrupted.
    """
    for option, value in (("column", column), ("label", label)):
        if options["data"] is None and value is not None:
            raise click.UsageError(f"--{option} goes with --data; golden vectors have no columns")
    terminal.load_tensorflow()

    from tfapp.release import bench as bench_release
    from tfapp.runs import writing_to

    report = bench_release(release, feature_column=column, label_column=label, **options)
    folder = Path(f"bench-{report.name}") if output is None else output
    with writing_to(folder):
        written = report.save(folder)
    terminal.print_table(f"benchmark of {report.title}", report.summary())
    if rows := report.latencies():
        terminal.print_table("latency in ms, and the most memory until then", rows)
    for line in report.notes():
        click.echo(line)
    for line in report.errors:
        click.echo(f"  - {line}", err=True)
    path, *pictures = written
    beside = f", and {' and '.join(picture.name for picture in pictures)} beside it" if pictures else ""
    click.echo(f"Report: {terminal.shorten(path.absolute())}{beside}")
    sys.exit(1 if report.errors else 0)
