"""``tfapp prune``: remove old versions."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import debug_option


@click.command(short_help="Remove all but the last versions of a model.")
@click.argument("directory", metavar="saved_models/NAME", type=click.Path(path_type=Path))
@click.option(
    "--keep", type=click.IntRange(1), default=3, show_default=True, help="How many versions stay at least."
)
@click.option("--refused", is_flag=True, help="Also remove refused releases.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@debug_option
def prune(directory: Path, keep: int, refused: bool, dry_run: bool, as_json: bool) -> None:
    """Remove all but the last versions of a model.

    A version that serving/models.config names stays, whatever its number. So do numbered folders that are no
    release, and the work of exports that are still running; what killed ones left goes.
    """
    from tfapp.release.pruning import prune as prune_versions

    report = prune_versions(directory, keep=keep, refused=refused, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
        return
    terminal.print_table(f"versions in {directory}", report.table())
    verb = "Would free" if dry_run else "Freed"
    click.echo(f"{verb} {report.freed / 1e6:,.1f} MB.")
