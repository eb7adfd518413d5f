"""``tfapp verify``: check a release again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import debug_option, manifest_option


@click.command(short_help="Check a release again.")
@click.argument("release", type=click.Path(path_type=Path))
@manifest_option
@click.option("--files-only", is_flag=True, help="Compare the files and run nothing of the release.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@debug_option
def verify(release: Path, manifest_sha256: str | None, files_only: bool, as_json: bool) -> None:
    """Check a release again, wherever it lies: first its files, then every artifact's answers.

    Every file is compared with its checksum in the manifest, and nothing else may lie in the folder; only
    then the artifacts are run, each in its own process. The manifest vouches for the files, but who vouches
    for the manifest? With the --manifest-sha256 that was printed at the release, no other release passes.
    Exit status: 0 verified, 1 refused, 2 no release.
    """
    terminal.load_tensorflow()

    from tfapp.release import verify as verify_release

    report = verify_release(release, manifest_sha256=manifest_sha256, files_only=files_only)
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    else:
        terminal.print_table(f"verification of {release}", report.table())
        for note in report.notes:
            click.echo(f"note: {note}")
        click.echo(f"{report.summary}. Manifest sha256: {report.manifest_sha256}")
    for reason in report.reasons:
        click.echo(f"  - {reason}", err=True)
    sys.exit(0 if report.ok else 1)
