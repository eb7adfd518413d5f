"""The folder of a run: its stages, what each was made from, and the lock that keeps two runs apart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfapp import __version__
from tfapp.disk import LOCK, held, writing
from tfapp.errors import OutputError

_logger = logging.getLogger("tfapp")


@dataclass
class Stage:
    """One stage of a run, and its folder.

    Attributes:
        name: The stage's name, and the name of its folder.
        directory: Where the stage writes.
        inputs: Checksum of each thing that the stage's files are made from, by its name.
        finished: Whether it was found, or has become, complete; if not, it must run.
        result: What the stage reported when it finished; empty before.
        resumes: Whether an unfinished run from the same inputs left files to continue from.
    """

    name: str
    directory: Path
    inputs: dict[str, str]
    finished: bool = False
    result: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False

    @property
    def key(self) -> str:
        """Checksum of everything that the stage's files are made from."""
        return _checksum(self.inputs)

    def finish(self, result: Mapping[str, Any], outputs: Iterable[str] = ()) -> None:
        """Records that the stage is complete, so that the next run skips it.

        Args:
            result: What later stages and runs need to know; JSON values.
            outputs: Paths that must exist for the stage to be skipped, relative to its folder or absolute.
        """
        self.result = dict(result)
        self.record(finished=True, result=self.result, outputs=list(outputs))
        self.finished = True

    def record(self, **state: Any) -> None:
        """Writes what the stage is made from and how it stands into its folder.

        Args:
            state: JSON values.
        """
        write_json(self.directory / "stage.json", {"stage": self.name, "inputs": self.inputs, **state})


@dataclass
class RunFolder:
    """The folder ``runs/<name>`` of one workflow.

    Attributes:
        directory: The folder.
        finished_only: Whether nothing may be made or removed: a stage that is not finished is an error.
        skipped: Names of the stages that were found finished.
    """

    directory: Path
    finished_only: bool = False
    skipped: list[str] = field(default_factory=list)

    def stage(self, name: str, inputs: Mapping[str, Any]) -> Stage:
        """Opens a stage: finished when it was made from the same inputs, otherwise ready to run.

        Files of a stage that was made from other inputs are removed; the log says which inputs changed.

        Args:
            name: The stage's name.
            inputs: Everything that its files depend on; JSON values. tfapp's version is added.

        Returns:
            The stage, finished or to be run.

        Raises:
            OutputError: It is not finished, but `finished_only` says that it must be.
        """
        named = dict(_flatten({"tfapp": __version__, **inputs}))
        stage = Stage(name, self.directory / name, {key: _checksum(value) for key, value in named.items()})
        record = _read_json(stage.directory / "stage.json")
        if record.get("inputs") == stage.inputs:
            complete = all((stage.directory / path).exists() for path in record.get("outputs", ()))
            if record.get("finished") and complete:
                stage.finished, stage.result = True, dict(record["result"])
                self.skipped.append(name)
                return stage
            stage.resumes = not record.get("finished")
        if self.finished_only:
            why = (
                _what_changed(record, stage.inputs) if record and not stage.resumes else "it is not finished"
            )
            raise OutputError(
                f"{self.directory}: stage {name!r} cannot be used: {why}. Run `tfapp run` first."
            )
        if not stage.resumes and stage.directory.exists():
            _logger.info("%s: %s; its earlier files are removed", name, _what_changed(record, stage.inputs))
            remove(stage.directory)
        stage.directory.mkdir(parents=True, exist_ok=True)
        stage.record(finished=False)
        return stage


@contextlib.contextmanager
def open_run(directory: Path, *, fresh: bool = False, finished_only: bool = False) -> Iterator[RunFolder]:
    """Opens the folder of a run and holds its lock until the block ends.

    The system releases the lock when the process ends, however it ends, so no lock is ever stale.

    Args:
        directory: The folder, made when missing.
        fresh: Removes what earlier runs left in it.
        finished_only: Only looks at stages that are finished.

    Yields:
        The run's folder.

    Raises:
        OutputError: Another process is using the folder, or it cannot be written; with ``finished_only``
            also when there is no such run.
    """
    if finished_only and not directory.is_dir():
        raise OutputError(
            f"{directory}: there is no such run. Run `tfapp run` first, with the same --output."
        )
    with (
        writing_to(directory),
        held(directory, cure="give this run another name or --output"),
    ):
        if fresh:
            for path in directory.iterdir():
                if path.name != LOCK:
                    remove(path)
        yield RunFolder(directory, finished_only)


def writing_to(directory: Path) -> contextlib.AbstractContextManager[None]:
    """Turns a full disk or a folder that cannot be written into an `OutputError` with the command's cure.

    Args:
        directory: Where the block writes, for the message.

    Returns:
        The block's context.
    """
    return writing(
        directory,
        full="free some space, or choose another disk with --output, and run the same command again: it "
        "continues where it stood",
        denied="make it writable or choose another folder with --output",
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Args:
        path: The file.
        content: Its content.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; a missing or damaged file reads as empty, so that its stage runs again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _flatten(inputs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names the inputs of a stage as the workflow file does: ``train.batch_size``."""
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _what_changed(record: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    earlier = record.get("inputs")
    if not isinstance(earlier, dict):
        return "the record of an earlier run cannot be read"
    changed = [name for name in {**earlier, **inputs} if earlier.get(name) != inputs.get(name)]
    return f"changed since the earlier run: {', '.join(changed)}" if changed else "some of its files are gone"
