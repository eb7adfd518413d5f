"""``tfapp run``: the whole workflow."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import EXIT_INTERRUPTED, debug_option

ARTIFACT_COLUMNS = ("artifact", "MB", "agreement", "accuracy", "drop", "p50 ms", "verdict")


@click.command(short_help="Prepare, fine-tune, evaluate, export and verify.")
@click.argument("workflow", metavar="WORKFLOW.toml", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder that gets runs/ and saved_models/; the current one by default.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Replaces a setting of the file, such as train.batch_size=16; may be repeated.",
)
@click.option("--fresh", is_flag=True, help="Start anew instead of continuing an earlier run.")
@debug_option
def run(workflow: Path, output: Path, overrides: Sequence[str], fresh: bool) -> None:
    """Prepare, fine-tune, evaluate, export and verify.

    Stages whose inputs have not changed are skipped. Exit status: 0 released, 1 refused, 2 bad input or
    settings, 3 interrupted (run the same command again to continue).
    """
    from tfapp.config import load_config

    config = load_config(workflow, overrides)
    terminal.load_tensorflow()

    from tfapp.workflow import run_workflow

    try:
        result = run_workflow(config, output=output, fresh=fresh)
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Run the same command again to continue where it stood.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if result is None:
        click.echo("This worker has done its part; the chief evaluates and releases.")
        return
    table = result.release.table()
    attacked = any(row.get("robust", "-") != "-" for row in table)
    columns = [*ARTIFACT_COLUMNS[:-1], *(["robust"] if attacked else []), ARTIFACT_COLUMNS[-1]]
    rows = [{column: row[column] for column in columns} for row in table]
    terminal.print_table(f"release {config.name} {result.release.version}", rows)
    path = terminal.shorten(result.release.path)
    click.echo(f"Released: {path}")
    checksum = result.release.manifest_sha256
    click.echo(f"Manifest sha256: {checksum}. Keep it elsewhere; with it no other release passes:")
    click.echo(f"  tfapp verify {shlex.quote(path)} --manifest-sha256 {checksum}")
