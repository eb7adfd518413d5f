"""``tfapp tune-serving``: measure how a server should join requests."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import debug_option
from tfapp.errors import DataError


@click.command("tune-serving", short_help="Measure how a server here should join requests into batches.")
@click.argument("release", type=click.Path(path_type=Path))
@click.option("--file", "source", type=click.Path(path_type=Path), help="Typical texts, one a line.")
@click.option("--seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Of each load.")
@debug_option
def tune_serving(release: Path, source: Path | None, seconds: float) -> None:
    """Measure how a server here should join requests, and write serving/batching.config.

    Servers are started one after another with batches of other sizes and timeouts, and loaded on loopback by
    1, 4, 16 and 64 connections. Stop other work on this machine meanwhile. Without --file the golden vectors
    are asked, which are of all lengths.
    """
    texts: list[str] = []
    if source is not None:
        try:
            texts = [line for line in source.read_text(encoding="utf-8").split("\n") if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{source} cannot be read ({error}); give a UTF-8 file of texts.") from error
        if not texts:
            raise DataError(f"{source} holds no text.")
    terminal.load_tensorflow()

    from tfapp.serving.tuning import tune_serving as tune

    tuned = tune(release, texts=texts, seconds=seconds)
    rows = [
        {
            name: f"{value:,.1f}" if isinstance(value, float) else "-" if value is None else str(value)
            for name, value in asdict(row).items()
        }
        for row in tuned.rows
    ]
    terminal.print_table("batches measured", rows)
    click.echo(
        f"max_batch_size {tuned.max_batch_size}, batch_timeout_micros {tuned.batch_timeout_micros}: "
        f"{terminal.shorten(tuned.path)}"
    )
