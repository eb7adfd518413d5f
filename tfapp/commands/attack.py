"""``tfapp attack``: what is left of the accuracy of a release or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tfapp import terminal
from tfapp.commands._options import EPSILON, debug_option


@click.command(short_help="Attack a release or a run, and report what is left of its accuracy.")
@click.argument("target", metavar="RELEASE | WORKFLOW.toml", type=click.Path(path_type=Path))
@click.option("--attack", "name", help="'standard' by default, or one attack such as pgd or character_edits.")
@click.option(
    "--epsilon",
    type=EPSILON,
    help="Budget: 8/255 of the pixels' range, or 0.2 of a text's words, by default.",
)
@click.option("--norm", type=click.Choice(["linf", "l2"]), help="For images; linf by default.")
@click.option("--steps", "num_steps", type=click.IntRange(1), help="Steps of an attack that takes steps.")
@click.option("--restarts", "num_restarts", type=click.IntRange(1), help="Restarts, where there are any.")
@click.option("--max-queries", type=click.IntRange(1), help="Most questions about each text.")
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Time limit of an attack on texts.",
)
@click.option("--examples", type=click.IntRange(1), help="How many rows, drawn by the seed; 500 by default.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed of all that is drawn; 0 by default.")
@click.option("--curve", is_flag=True, help="Also measure smaller and larger budgets, with pgd on images.")
@click.option("--corruptions", is_flag=True, help="Also measure accuracy under common corruptions.")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled rows for a release without its run.")
@click.option("--column", help="Column of the texts or paths in --data; as the release's workflow has it.")
@click.option("--label", help="Column of the labels in --data; as the release's workflow has it.")
@click.option("--black-box-queries", type=click.IntRange(0), default=200, show_default=True)
@click.option("--black-box-examples", type=click.IntRange(0), default=50, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the report; attack-<name> by default. For a workflow that of `tfapp run`.",
)
@debug_option
def attack(target: Path, output: Path | None, **options: Any) -> None:
    """Attack a release or a finished run, and report what is left of its accuracy.

    A release's Keras model is attacked through its weights on the test rows that its run left, or on those of
    --data; what fools it is sent to every artifact, and each TFLite and ONNX file is attacked itself by
    asking it --black-box-queries times about each of --black-box-examples rows. Of a workflow, the trained
    model is attacked on its test rows, with the settings of [evaluate.attack] where no option says otherwise.

    The report is report.html, with the figures as JSON beside it. Exit status: 0 measured, 2 bad input or
    settings, 3 interrupted.
    """
    if target.suffix == ".toml":
        from tfapp.config import load_config

        for option in ("data", "column", "label"):
            if options.pop(option) is not None:
                raise click.UsageError(f"--{option} goes with a release; a workflow has its own rows")
        for option in ("black_box_queries", "black_box_examples"):
            options.pop(option)
            if click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT:
                named = option.replace("_", "-")
                raise click.UsageError(f"--{named} goes with a release; of a workflow the model is attacked")
        config = load_config(target)
        terminal.load_tensorflow()

        from tfapp.commands._attacking import attack_workflow

        report = attack_workflow(config, output or Path(), **options)
    else:
        for option in ("column", "label"):
            if options["data"] is None and options[option] is not None:
                raise click.UsageError(f"--{option} goes with --data; a run's own rows have no columns")
        terminal.load_tensorflow()

        from tfapp.commands._attacking import attack_release_folder

        report = attack_release_folder(target, output, **options)
    for line in report.lines:
        click.echo(line)
    for title, rows in report.tables:
        terminal.print_table(title, rows)
    click.echo(f"Report: {terminal.shorten(report.path)}")
