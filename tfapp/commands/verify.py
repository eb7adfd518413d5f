"""``tfapp verify``: check a release again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import debug_option


@click.command(short_help="Check a release again.")
@click.argument("release", type=click.Path(path_type=Path))
@debug_option
def verify(release: Path) -> None:
    """Check a release again: every file's checksum, then every artifact's answers."""
    terminal.load_tensorflow()

    from tfapp.release import verify as verify_release

    report = verify_release(release)
    terminal.print_table(f"verification of {release}", report.table())
    for reason in report.reasons:
        click.echo(f"  - {reason}", err=True)
    sys.exit(0 if report.ok else 1)
