"""What a run tells of itself on disk, read by another process while it works."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfapp.disk import is_held
from tfapp.errors import OutputError

STAGES = (
    "prepare",
    "prepare-source",
    "transfer",
    "harden",
    "distill",
    "evaluate",
    "evaluate-teacher",
    "attack",
    "ledger",
    "export",
)
"""Stages of a workflow in their order."""

_PROGRESS, _HISTORY, _STAGE = "progress.json", "history.csv", "stage.json"


@dataclass(frozen=True)
class Watched:
    """A run at a moment.

    Attributes:
        directory: The folder that was asked for.
        running: Whether a process is at work in it.
        stages: Each stage that has begun, and whether it is complete; empty where the folder is no
            workflow's.
        training: The folder of the training that is newest, or None.
        progress: What that training says of itself, see `tfapp.training.live`; empty where it says nothing.
        history: Its finished epochs, numbers as numbers.
        checkpoint: When its last checkpoint was written, in seconds since 1970; None where there is none.
        seen: When all this was read, in seconds since 1970.
    """

    directory: Path
    running: bool
    stages: dict[str, bool]
    training: Path | None
    progress: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: float | None = None
    seen: float = 0.0

    @property
    def state(self) -> str:
        """``"running"``, ``"finished"``, ``"stopped"``, ``"failed"`` or ``"killed"``.

        A run that was stopped or killed, or whose workflow failed, goes on with the same command.
        """
        if self.running:
            return "running"
        told = str(self.progress.get("state", ""))
        if told in ("failed", "stopped"):
            return told
        complete = all(self.stages.values()) if self.stages else told == "finished"
        return "finished" if complete else "killed"

    @property
    def stage(self) -> str | None:
        """The stage that is at work, or was when the run ended; None where all are complete."""
        return next((name for name, complete in reversed(self.stages.items()) if not complete), None)


def watch(directory: Path) -> Watched:
    """Reads where a run stands.

    Args:
        directory: ``runs/<name>``, one of its stages, or the ``run_dir`` of a training.

    Returns:
        What was found.

    Raises:
        OutputError: When there is no run; the message tells which ones there are.
    """
    stages = _stages(directory)
    trainings = [directory, *(path for path in directory.glob("*") if path.is_dir())]
    trainings += [path for stage in stages for path in (directory / stage).glob("alpha-*")]
    newest = max(
        (path for path in trainings if (path / _PROGRESS).exists() or (path / _HISTORY).exists()),
        key=_changed,
        default=None,
    )
    alone = _read_object(directory / _STAGE)
    if newest is None and not stages and not alone:
        raise OutputError(f"{directory}: there is no run. {_those_there(directory)}")
    if alone and not stages:
        stages = {str(alone.get("stage", directory.name)): bool(alone.get("finished"))}
    checkpoints = [] if newest is None else list((newest / "checkpoints").glob("checkpoint*.npz"))
    return Watched(
        directory=directory,
        # A stage's own lock is the training's; the workflow's lies above it.
        running=any(is_held(path) for path in {directory, newest or directory, *_above(directory, alone)}),
        stages=stages,
        training=newest,
        progress={} if newest is None else _read_object(newest / _PROGRESS),
        history=[] if newest is None else _read_history(newest / _HISTORY),
        checkpoint=max(_times(checkpoints), default=None),
        seen=time.time(),
    )


def _above(directory: Path, stage: Mapping[str, Any]) -> list[Path]:
    return [directory.absolute().parent] if stage and not stage.get("finished") else []


def _stages(directory: Path) -> dict[str, bool]:
    found = {
        path.parent.name: bool(_read_object(path).get("finished")) for path in directory.glob(f"*/{_STAGE}")
    }
    order = {name: number for number, name in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _changed(directory: Path) -> float:
    return max(_times([directory / _PROGRESS, directory / _HISTORY]), default=0.0)


def _times(paths: Iterable[Path]) -> list[float]:
    """When files were changed; a run removes some of them while they are looked at."""
    times = []
    for path in paths:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return times


def _those_there(directory: Path) -> str:
    """Names the runs nearby."""
    for parent in (directory, directory.parent, directory.parent / "runs"):
        if parent.is_dir():
            names = sorted(
                {path.parent.parent.name for path in parent.glob(f"*/*/{_STAGE}")}
                | {path.parent.name for path in parent.glob(f"*/{_PROGRESS}")}
            )
            if names:
                return f"In {parent} there are: {', '.join(names)}."
    return "`tfapp run` writes runs/<name> below its --output, and `train` into its run_dir."


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_history(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except OSError:
        return []


def _number(text: str | None) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
