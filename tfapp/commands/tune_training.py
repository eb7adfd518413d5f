"""``tfapp tune-training``: measure how a workflow trains fastest on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from tfapp import terminal
from tfapp.commands._options import debug_option
from tfapp.errors import ConfigError

if TYPE_CHECKING:
    from tfapp.training.tuning import Tuned

_TUNED = ("precision", "batch_size", "feature_cache_megabytes")


@click.command("tune-training", short_help="Measure how a workflow trains fastest on this machine.")
@click.argument("workflow", metavar="WORKFLOW.toml", type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=click.FloatRange(1.0),
    default=60.0,
    show_default=True,
    help="About how long to measure, once data and model are loaded.",
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    help="Tries this batch size too, which changes what is learned; may be repeated.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Replaces a setting of the file, such as transfer.phases.0.epochs=1; may be repeated.",
)
@click.option("--write", is_flag=True, help="Writes the fastest settings into the file.")
@debug_option
def tune_training(
    workflow: Path, seconds: float, batch_sizes: Sequence[int], overrides: Sequence[str], write: bool
) -> None:
    """Measure how a workflow trains fastest on this machine, and print the keys to set.

    Parts of each phase are trained on a sample of the rows, in float32 and bfloat16 where the device is made
    for it, and with and without the feature cache, by turns; nothing is kept of that. Stop other work on this
    machine meanwhile. Only what is faster beyond doubt is named. One device is measured.

    Precision and cache change what is learned by rounding only. The batch size changes it, so it is tried and
    written only with --batch-size; choose the learning rate anew for another one.
    """
    from tfapp.config import load_config
    from tfapp.config_edits import WorkflowFile

    config = load_config(workflow, overrides)
    file = None
    if write:
        _refuse_overrides(overrides)
        file = WorkflowFile(workflow)
    terminal.load_tensorflow()

    from tfapp.workflow_tuning import tune_workflow

    tuned = tune_workflow(config, batch_sizes=batch_sizes, seconds=seconds)
    terminal.print_table("training measured", _rows(tuned))
    changes = tuned.changes
    if not changes:
        click.echo("No other settings are faster beyond doubt; nothing to change.")
        return
    click.echo(f"The whole training would take {1 / tuned.chosen.speed_up:.0%} of the time with")
    for name, value in changes.items():
        click.echo(f"  train.{name} = {json.dumps(value)}")
    if "batch_size" in changes:
        click.echo("Another batch size learns something else: choose the learning rates of the phases anew.")
    if file is None:
        click.echo("Set them in [train], or run this again with --write.")
    else:
        file.write({f"train.{name}": value for name, value in changes.items()})
        click.echo(f"Written: {terminal.shorten(file.path)}")


def _refuse_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in {"train", *(f"train.{name}" for name in _TUNED)}:
            raise ConfigError(
                f"--set {override}: --write would write into the file what was found beside this setting, "
                "which the file does not have; leave one of the two out."
            )


def _rows(tuned: Tuned) -> list[dict[str, Any]]:
    """A line for each phase and way."""
    rows = []
    for phase in tuned.phases:
        present = tuned.now.way(phase)
        usual = phase.seconds.get(present)
        for way in [*phase.seconds, *phase.failed]:
            passes = phase.seconds.get(way)
            gains = [old / new for old, new in zip(usual or (), passes or (), strict=False)]
            features = "cached" if way.cached else "computed" if phase.cache_megabytes is not None else "-"
            rows.append(
                {
                    "phase": phase.title,
                    "precision": way.precision,
                    "batch": way.batch_size,
                    "features": features,
                    "rows/s": f"{phase.sample / median(passes):,.0f}" if passes else "-",
                    "against now": "now"
                    if way == present
                    else f"{median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})"
                    if gains
                    else phase.failed.get(way, "-"),
                    "rounds": len(passes) if passes else 0,
                }
            )
    return rows
