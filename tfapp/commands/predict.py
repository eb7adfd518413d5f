"""``tfapp predict``: classify texts or images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfapp import terminal
from tfapp.commands._options import bom_option, debug_option, manifest_option
from tfapp.csv_text import csv_text
from tfapp.disk import writing
from tfapp.errors import DataError

if TYPE_CHECKING:
    from tfapp.serving import Prediction


@click.command(short_help="Classify texts or images with a release.")
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("features", nargs=-1, metavar="[TEXT | IMAGE]...")
@click.option(
    "--file",
    "source",
    type=click.File("rb"),
    help="File of texts or of paths of images, one a line, blank lines left out; '-' is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as when piped.")
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a CSV file: label, and the probability of each class.",
)
@bom_option
@manifest_option
@debug_option
def predict(
    release: Path,
    features: Sequence[str],
    source: Any,
    as_json: bool,
    table: Path | None,
    bom: bool,
    manifest_sha256: str | None,
) -> None:
    """Classify texts or images with a release: the arguments, a file, or standard input.

    A file and standard input hold one text, or one path of an image, a line; blank lines are left out. What
    cannot be classified is named on standard error, and the exit status is then 2; the others are answered.
    """
    _check_arguments(features)
    if bom and table is None:
        raise click.UsageError("--bom goes with --csv")
    if as_json and table is not None:
        raise click.UsageError("give --json or --csv, not both")
    if source is None and not features:
        if sys.stdin.isatty():
            raise click.UsageError(
                "give texts or paths of images as arguments, --file FILE, or pipe them in: "
                'tfapp predict R "text"'
            )
        source = sys.stdin.buffer
    asked = [*features, *(_lines(source) if source is not None else ())]
    if not asked:
        raise click.UsageError("there is nothing to classify")
    terminal.load_tensorflow()

    from tfapp.serving import load_release

    predictor = load_release(release, manifest_sha256=manifest_sha256)
    what = "text" if predictor.feature == "text" else "image"
    as_lines = as_json or not sys.stdout.isatty()
    rows: list[dict[str, str]] = []
    lines: list[list[Any]] = []
    refused = 0
    for feature, answer in zip(asked, predictor.predict_each(asked), strict=True):
        if isinstance(answer, DataError):
            refused += 1
            click.echo(f"error: {answer}", err=True)
        elif table is not None:
            lines.append([feature, answer.label, *(answer.probabilities[name] for name in predictor.classes)])
        elif as_lines:
            line = {what: feature, "label": answer.label, "probabilities": answer.probabilities}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            rows.append(_row(what, feature, answer))
    if rows:
        terminal.print_table("", rows)
    if table is not None:
        header = [what, "label", *(f"probability of {name}" for name in predictor.classes)]
        _write(table, csv_text(header, lines, bom=bom))
        click.echo(f"Written: {terminal.shorten(table.absolute())}", err=True)
    if refused:
        raise DataError(
            f"{refused:,} of {len(asked):,} {what}s could not be classified, as said above; repair them or "
            "leave them out."
        )


def _write(path: Path, content: str) -> None:
    from tfapp.evaluation.report import write_whole

    with writing(path.absolute().parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda target: target.write_text(content, encoding="utf-8", newline=""))


def _check_arguments(texts: Iterable[str]) -> None:
    """Refuses texts whose bytes Python could not decode: it hands them on as lone surrogates."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text {text!r} holds bytes that are not {sys.getfilesystemencoding()}; give it in that "
                "encoding, or in a UTF-8 file with --file"
            ) from error


def _lines(source: Any) -> list[str]:
    """Reads the texts of a file or standard input, a line each, blank lines left out.

    Only line feeds end a line: other characters that Unicode calls line breaks belong to a text.
    """
    name = getattr(source, "name", "standard input")
    content: bytes = source.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}, line {line}: not UTF-8; save the file as UTF-8") from error
    return [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line.strip()]


def _row(what: str, feature: str, prediction: Prediction) -> dict[str, str]:
    return {
        what: terminal.fitted(feature, 60),
        "label": prediction.label,
        "probability": f"{prediction.probabilities[prediction.label]:.3f}",
    }
