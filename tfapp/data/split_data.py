"""What text data and image data have in common: three splits, class names, a report, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tfapp.data.report import DataReport
from tfapp.errors import DataError

SPLITS = ("train", "validation", "test")


class Split(Protocol):
    """Rows of one split with their labels."""

    @property
    def name(self) -> str:
        """``"train"``, ``"validation"`` or ``"test"``."""

    @property
    def features(self) -> Sequence[Any]:
        """What a model is asked about: texts, or the bytes of image files."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """int32 array (rows,): positions in ``classes``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in their order."""

    @property
    def sha256(self) -> str:
        """Fingerprint of features, labels and classes."""

    def __len__(self) -> int:
        """The number of rows."""


SplitType = TypeVar("SplitType", bound=Split)


@dataclass(frozen=True, eq=False)
class SplitData(Generic[SplitType]):
    """Training, validation and test rows, and the report of how they came about.

    Attributes:
        train: The rows to train on.
        validation: The rows to choose by.
        test: The rows to measure on.
        classes: The class names in their order.
        report: What was read and left out.
        seed: The seed of the drawn splits.
        task: What a label is: ``"single_label"``.
        kind: What the rows are: ``"text"`` or ``"image"``.
    """

    kind: ClassVar[str]

    train: SplitType
    validation: SplitType
    test: SplitType
    classes: tuple[str, ...]
    report: DataReport
    seed: int
    task: str = "single_label"

    @property
    def splits(self) -> dict[str, SplitType]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all three splits, the same in every process and on every machine."""
        parts = [self.task, *(split.sha256 for split in self.splits.values())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"{type(self).__name__}({rows} rows; {len(self.classes)} classes)"

    def save(self, directory: str | Path) -> Path:
        """Writes the splits and the report into a folder, all or nothing.

        Args:
            directory: The folder; one that holds saved data is replaced.

        Returns:
            The folder.

        Raises:
            OutputError: If it cannot be written, or holds something else.
        """
        from tfapp.data.storage import save_data

        return save_data(self, Path(directory))


def checked_labels(
    split: str, labels: npt.NDArray[Any], rows: int, noun: str, classes: tuple[str, ...]
) -> npt.NDArray[np.int32]:
    """Copies the labels of a split, and refuses those that do not fit it.

    Args:
        split: The split's name.
        labels: Integer array (rows,).
        rows: How many rows the split has.
        noun: What they are, in the plural.
        classes: The class names.

    Returns:
        Read-only int32 array (rows,).

    Raises:
        DataError: If the shape is another, or a label is no position in ``classes``.
    """
    copy = np.array(labels, np.int32)
    if copy.shape != (rows,):
        raise DataError(f"split {split!r} has {rows} {noun} and labels of shape {copy.shape}.")
    if len(copy) and not 0 <= copy.min() <= copy.max() < len(classes):
        raise DataError(f"split {split!r} has labels outside 0..{len(classes) - 1}, its class indices.")
    copy.setflags(write=False)
    return copy


def fingerprint_rows(title: bytes, strings: Sequence[Sequence[str]], labels: npt.NDArray[np.int32]) -> str:
    """Computes the fingerprint of a split.

    Args:
        title: What the split is, with the version of this computation.
        strings: The class names, and what stands for the rows' content.
        labels: int32 array (rows,).

    Returns:
        Hexadecimal sha256, the same in every process and on every machine.
    """
    digest = hashlib.sha256(title)
    for part in strings:
        lengths = np.fromiter(map(len, part), "<i8", len(part))
        digest.update(np.int64(len(part)).astype("<i8").tobytes() + lengths.tobytes())
        digest.update("".join(part).encode("utf-8"))
    digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()
