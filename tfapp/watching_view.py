"""A run as people see it in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tfapp.watching import Watched

if TYPE_CHECKING:
    from rich.console import RenderableType

_BARS = "▁▂▃▄▅▆▇█"
_EPOCHS = 8
_STATES = {
    "running": ("running", "green"),
    "finished": ("finished", "cyan"),
    "stopped": ("stopped after a checkpoint; the same command goes on", "yellow"),
    "failed": ("failed", "red"),
    "killed": ("ended without finishing: killed, or an error; the same command goes on", "red"),
}
_AT_WORK = ("training", "validating")
_COLUMNS = {
    "loss": "loss",
    "val_loss": "val loss",
    "accuracy": "accuracy",
    "val_accuracy": "val accuracy",
    "learning_rate": "learning rate",
    "seconds": "seconds",
}


def view(watched: Watched) -> RenderableType:
    """Lays out what is known of a run.

    Args:
        watched: The run.

    Returns:
        What rich prints.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    words, colour = _STATES[watched.state]
    title = Text.assemble((str(watched.directory), "bold"), "  ", (words, colour))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(watched):
        facts.add_row(name, Text(value))
    parts: list[RenderableType] = [title, facts]
    if watched.history:
        table = Table(box=box.SIMPLE, header_style="dim")
        for name in ("phase", "epoch", *_COLUMNS.values()):
            table.add_column(name, justify="right")
        for row in watched.history[-_EPOCHS:]:
            place = (f"{_plain(row.get('phase'))} ({_word(row.get('train'))})", _plain(row.get("epoch")))
            table.add_row(*place, *(_plain(row.get(name)) for name in _COLUMNS))
        parts.append(table)
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """Draws numbers as a line of bars, the smallest lowest; those that are not finite are left out.

    Args:
        values: The numbers, in their order.

    Returns:
        A sign for each.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in finite)


def duration(seconds: float) -> str:
    """Words a time in its two greatest units, such as ``"3 min 5 s"``.

    Args:
        seconds: 0 or more.
    """
    whole = max(0, round(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    found: list[str] = []
    for name, length in units:
        count, whole = divmod(whole, length)
        if count or (name == "s" and not found):
            found.append(f"{count} {name}")
    return " ".join(found[:2])


def _facts(watched: Watched) -> Iterable[tuple[str, str]]:
    told = watched.progress
    if watched.stages:
        stages = (f"{name} {'done' if done else 'begun'}" for name, done in watched.stages.items())
        yield "stages", ", ".join(stages)
    if watched.state == "running" and watched.stage is not None:
        yield "stage", watched.stage
    if watched.state == "failed":
        yield "error", str(told.get("error", ""))
    if "phase" in told:
        yield "phase", f"{told['phase']} of {told['phases']} ({told['train']})"
        yield "epoch", f"{told['epoch']} of {told['epochs']}, step {told['step']:,} of {told['steps']:,}"
        ago = f"{duration(watched.seen - told['updated'])} ago"
        if watched.state == "running" and told["state"] in _AT_WORK:
            yield "now", f"{told['state']}, told {ago}"
        else:
            yield (
                "training",
                f"{told['state'] if told['state'] not in _AT_WORK else 'ended'}, last told {ago}",
            )
    numbers = told.get("numbers") or {}
    if "loss" in numbers:
        yield "this epoch", ", ".join(f"{name} {numbers[name]:.4f}" for name in _COLUMNS if name in numbers)
    if told.get("recent_losses"):
        recent = [float(value) for value in told["recent_losses"]]
        yield "loss of steps", f"{sparkline(recent)} {recent[-1]:.4f}"
    for name in ("val_loss", "val_accuracy"):
        values = [row[name] for row in watched.history if isinstance(row.get(name), float)]
        if len(values) > 1:
            yield _COLUMNS[name], f"{sparkline(values)} {values[-1]:.4f}"
    yield from _speed(told, running=watched.state == "running")
    if watched.checkpoint is not None:
        yield "last checkpoint", f"{duration(watched.seen - watched.checkpoint)} ago"
    if told.get("memory_bytes"):
        yield "memory", f"{told['memory_bytes'] / 1e9:.2f} GB"
    for number, gpu in enumerate(told.get("gpus") or []):
        memory = f"{gpu['memory_used'] / 1e9:.1f} of {gpu['memory_total'] / 1e9:.1f} GB"
        yield f"GPU {number}", f"{gpu['name']}: {memory}, {gpu['utilization']:.0%} busy"
    if "process" in told and watched.state == "running":
        yield "process", f"{told['process']} on {told['host']}"


def _speed(told: dict[str, Any], *, running: bool) -> Iterable[tuple[str, str]]:
    rates = told.get("rates")
    if rates:
        tokens = rates["tokens_per_second"]
        speed = f"{rates['examples_per_second']:,.1f} examples/s"
        yield "speed", speed if tokens is None else f"{speed}, {tokens:,.0f} tokens/s"
        if rates["input_wait"] is not None:
            yield "waits for input", f"{rates['input_wait']:.1%} of the time"
    if told.get("learning_rate") is not None:
        yield "learning rate", f"{told['learning_rate']:.3g}"
    if running and told.get("seconds_left") is not None:
        yield "time left", f"{duration(told['seconds_left'])} in this phase"


def _plain(value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str) else _plain(value)
