"""``tfapp launch``: the whole workflow, in several workers of one machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tfapp.commands._options import EXIT_INTERRUPTED, debug_option


@click.command(short_help="Run a workflow in several workers of this machine.")
@click.argument("workflow", metavar="WORKFLOW.toml", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="How many processes.")
@click.option(
    "--restarts",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="How often all are started again when one has crashed; they go on from the last checkpoint.",
)
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
def launch(
    workflow: Path, workers: int, restarts: int, output: Path, overrides: Sequence[str], fresh: bool
) -> None:
    """Run a workflow in several workers of this machine.

    Each is a process that runs `tfapp run` with a TF_CONFIG of its own and trains on its part of every
    batch. The first one, the chief, writes to the terminal and releases. Several GPUs of one machine are
    used faster by `tfapp run` alone, which mirrors the model on them.

    Exit status: that of `tfapp run`; 70 when a worker crashed.
    """
    from tfapp.config import load_config
    from tfapp.launching import launch as start

    config = load_config(workflow, overrides)  # a mistake is told once, not by every worker
    if config.hardware.strategy not in ("auto", "multi_worker") or config.hardware.virtual_devices:
        raise click.UsageError(
            "several workers train under [hardware] strategy = 'auto' or 'multi_worker', "
            "without virtual_devices."
        )
    arguments = ["run", str(workflow), "--output", str(output)]
    for override in overrides:
        arguments += ["--set", override]
    if click.get_current_context().find_root().meta.get("tfapp.debug"):
        arguments.append("--debug")
    status = start(arguments, workers=workers, restarts=restarts, once=["--fresh"] if fresh else [])
    if status == EXIT_INTERRUPTED:
        click.echo("\nInterrupted. Run the same command again to continue where it stood.", err=True)
    sys.exit(status)
