"""Errors that a user can cause, each telling what is wrong, where, and how to cure it."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

_CANNOT_WRITE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class TfappError(Exception):
    """Base of every error that a user of tfapp can cause and cure.

    Attributes:
        exit_code: The exit status with which the command line ends on this error.
    """

    exit_code: int = 2


class ConfigError(TfappError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(TfappError):
    """A data file, row, column or label cannot be used."""


class AssetError(TfappError):
    """A packaged asset cannot be fetched, or is not what its checksum says."""


class WeightsError(TfappError):
    """A backbone is unknown, or its weight files are damaged, unsafe or do not fit."""


class OutputError(TfappError):
    """An output name is unsafe, or an output folder cannot be written."""


class TrainingError(TfappError):
    """Training went wrong in a way that other settings cure."""


class WorkerLost(TrainingError):  # noqa: N818 - a stop, from which the same command goes on
    """Another of the workers that train together has ended."""

    exit_code = 3


class ReleaseError(TfappError):
    """A release folder is damaged, incomplete or not a release."""


class ServingError(TfappError):
    """A server cannot be reached, has no such model, or does not answer as it should."""


class ReleaseRefused(TfappError):  # noqa: N818 - a verdict, not a mistake
    """An artifact went beyond its budget, so nothing was released.

    Attributes:
        reasons: Why, one sentence for each broken budget.
        directory: Where the refused artifacts and their manifest lie.
    """

    exit_code = 1

    def __init__(self, reasons: Iterable[str], directory: Path) -> None:
        self.reasons = list(reasons)
        self.directory = directory
        listed = "\n".join(f"  - {reason}" for reason in self.reasons)
        super().__init__(
            f"release refused:\n{listed}\nThe refused artifacts are in {directory}, which no server scans; "
            "delete it when you have seen enough."
        )


def nearest(name: str, choices: Iterable[str]) -> str:
    """Words the choices for an unknown name, the most similar first.

    Args:
        name: What the user gave.
        choices: The names that exist.

    Returns:
        ``"did you mean 'a' or 'b'?"`` when something is similar, otherwise all choices.
    """
    known = sorted(choices)
    similar = _similar(name, known, 3)
    if similar:
        return "did you mean " + " or ".join(repr(choice) for choice in similar) + "?"
    return "choices: " + ", ".join(repr(choice) for choice in known)


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuses names that do not exist.

    Args:
        names: What the user gave.
        known: The names that exist.
        what: What they are names of, in the words of the message.

    Raises:
        ConfigError: For the first unknown name, with the most similar ones.
    """
    choices = list(known)
    for name in names:
        if name not in choices:
            hint = nearest(str(name), choices) if choices else "there is none"
            raise ConfigError(f"unknown {what} {name!r}; {hint}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Words the most similar choice as a sentence, and nothing when none is similar.

    Args:
        name: What the user gave.
        choices: What there is; more than a message should list.

    Returns:
        ``" Did you mean 'a'?"`` or an empty string.
    """
    similar = _similar(name, choices, 1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def _similar(name: str, choices: Iterable[str], count: int) -> list[str]:
    lower = {choice.lower(): choice for choice in choices}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=count, cutoff=0.5)]


def writing_problem(error: BaseException) -> Literal["full", "denied"] | None:
    """Tells errors of writing from all others.

    TensorFlow and HDF5 report a full disk in exceptions of their own, told by their text.

    Args:
        error: Any error.

    Returns:
        ``"full"`` for a full disk, ``"denied"`` for a place that cannot be written, None for other errors.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL or "No space left on device" in str(error):
        return "full"
    return "denied" if number in _CANNOT_WRITE else None
