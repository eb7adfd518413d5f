"""``tfapp diff``: compare two releases."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import after_manifest_option, before_manifest_option, bom_option, debug_option


@click.command(short_help="Compare two releases: changed labels, accuracy, and what they were made from.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Labelled rows to ask both about.")
@click.option("--column", help="Column of the texts or paths in --data; as the workflow has it.")
@click.option("--label", help="Column of the labels in --data; as the workflow has it.")
@click.option("--variant", help="Which artifact is asked; the SavedModel if both have it.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the list; diff-A-B by default.")
@before_manifest_option
@after_manifest_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; no files.")
@bom_option
@debug_option
def diff(
    before: Path,
    after: Path,
    data: Path | None,
    column: str | None,
    label: str | None,
    variant: str | None,
    output: Path | None,
    as_json: bool,
    bom: bool,
    before_manifest_sha256: str | None,
    after_manifest_sha256: str | None,
) -> None:
    """Compare two releases: which examples changed label, and whether the accuracy moved.

    Both are asked about the rows of --data, or about the test rows that their run left beside saved_models;
    where there are none, about their golden inputs, which have no labels. The difference in accuracy has its
    interval from a paired bootstrap, and McNemar's exact test. What differs in settings, data, libraries,
    sizes and latencies is told, too. diff.json and changed.csv go into a folder. Artifacts are programs:
    without the sums of both manifests, nothing proves whose they are.
    """
    for option, value in (("column", column), ("label", label)):
        if data is None and value is not None:
            raise click.UsageError(f"--{option} goes with --data; a run's own rows have no columns")
    terminal.load_tensorflow()

    from tfapp.release.comparison import compare_releases

    found = compare_releases(
        before,
        after,
        data=data,
        variant=variant,
        feature_column=column,
        label_column=label,
        before_manifest_sha256=before_manifest_sha256,
        after_manifest_sha256=after_manifest_sha256,
    )
    if as_json:
        click.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
        return
    for title, rows in found.tables():
        terminal.print_table(title, rows)
    for line in found.lines():
        click.echo(line)
    titles = "-".join((found.before["title"], found.after["title"]))
    folder = found.save(output or Path(re.sub(r"[^\w-]+", "-", f"diff-{titles}")), bom=bom)
    click.echo(f"Written: {terminal.shorten(folder)}")
