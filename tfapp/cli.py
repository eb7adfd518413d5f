"""The command line: its commands, and what becomes of their errors."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from tfapp import __version__
from tfapp.commands import COMMANDS
from tfapp.commands._options import EXIT_INTERRUPTED, debug_option
from tfapp.errors import TfappError
from tfapp.terminal import log_to_terminal

EXIT_BUG = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tfapp %(version)s")
@debug_option
def app() -> None:
    """Fine-tune BERT and ResNet50 with Keras, and release only what was measured."""


for _name, _command in COMMANDS.items():
    app.add_command(_command, _name)


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
