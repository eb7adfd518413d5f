"""``tfapp monitor``: watch a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from tfapp.commands._options import EXIT_INTERRUPTED, debug_option


@click.command(short_help="Watch a run: where it stands, losses, speed, time left.")
@click.argument("run", metavar="runs/NAME", type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Print once and end; by itself where the output is no terminal.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
@debug_option
def monitor(run: Path, once: bool, interval: float) -> None:
    """Watch a run: where it stands, losses, speed, time left.

    Give the folder of a run, of one of its stages, or the run_dir of a training in Python. Only files are
    read: the run may belong to another process, and is not disturbed. Ends when the run ends.

    Exit status: 0 running or finished, 1 it was stopped or killed or has failed, 2 there is no such run, 3
    interrupted.
    """
    from rich.console import Console
    from rich.live import Live

    from tfapp.watching import watch
    from tfapp.watching_view import view

    watched = watch(run)
    if once or not sys.stdout.isatty():
        Console(width=None if sys.stdout.isatty() else 120).print(view(watched))
        sys.exit(watched.state not in ("running", "finished"))
    try:
        with Live(view(watched), auto_refresh=False) as live:
            while watched.state == "running":
                time.sleep(interval)
                watched = watch(run)
                live.update(view(watched), refresh=True)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(watched.state != "finished")
