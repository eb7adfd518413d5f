"""``tfapp doctor``: what is installed, and what is wrong."""

from __future__ import annotations

import contextlib

import click

from tfapp import terminal
from tfapp.commands._options import debug_option


@click.command(short_help="Tell what is installed here, and what is wrong.")
@debug_option
def doctor() -> None:
    """Tell what is installed here, what this machine can do, and what is wrong."""
    with contextlib.suppress(Exception):  # what keeps TensorFlow from loading is told below
        terminal.load_tensorflow()

    from tfapp.doctor import examine

    findings = examine()
    for section in findings.sections:
        terminal.print_table(section.title, [{"": name, " ": value} for name, value in section.rows])
    for warning in findings.warnings:
        click.echo(f"warning: {warning}")
    if not findings.warnings:
        click.echo("No problem found.")
