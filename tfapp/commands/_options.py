"""Options and types that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

EXIT_INTERRUPTED = 3
_Command = TypeVar("_Command", bound=Callable[..., Any])


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
bom_option = click.option(
    "--bom",
    is_flag=True,
    help="Begin the CSV file with a byte order mark, by which Excel takes it for UTF-8.",
)
debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback of an error."
)


def _manifest_option(name: str, whose: str) -> Callable[[_Command], _Command]:
    return click.option(
        name,
        metavar="HEX",
        help=f"What the sha256 of {whose} manifest must be, as `tfapp run` printed it; others are refused.",
    )


manifest_option = _manifest_option("--manifest-sha256", "the")
before_manifest_option = _manifest_option("--before-manifest-sha256", "BEFORE's")
after_manifest_option = _manifest_option("--after-manifest-sha256", "AFTER's")
