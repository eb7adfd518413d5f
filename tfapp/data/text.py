"""Text classification data: read, cleaned, split, fingerprinted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, clean, remove_leaks
from tfapp.data.labels import (
    check_class_sizes,
    check_known_classes,
    find_classes,
    name_labels,
    order_classes,
)
from tfapp.data.readers import read_source
from tfapp.data.readers.table import Table, counted
from tfapp.data.report import DataReport, Dropped
from tfapp.data.splits import check_fractions, stratified_split
from tfapp.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Texts of one split with their labels.

    Attributes:
        name: ``"train"``, ``"validation"`` or ``"test"``.
        texts: The texts, as they were read.
        labels: int32 array (rows,): positions in ``classes``; read-only.
        classes: The class names in their order.
    """

    name: str
    texts: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))
        labels = np.array(self.labels, np.int32)
        if labels.shape != (len(self.texts),):
            raise DataError(
                f"split {self.name!r} has {len(self.texts)} texts and labels of shape {labels.shape}."
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise DataError(
                f"split {self.name!r} has labels outside 0..{len(self.classes) - 1}, its class indices."
            )
        labels.setflags(write=False)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"TextSplit({self.name!r}, {len(self):,} rows, {len(self.classes)} classes)"

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of texts, labels and classes, the same in every process and on every machine."""
        digest = hashlib.sha256(b"tfapp text split 1\0")
        for strings in (self.classes, self.texts):
            lengths = np.fromiter(map(len, strings), "<i8", len(strings))
            digest.update(np.int64(len(strings)).astype("<i8").tobytes() + lengths.tobytes())
            digest.update("".join(strings).encode("utf-8"))
        digest.update(self.labels.astype("<i4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TextData:
    """Training, validation and test texts, and the report of how they came about.

    Attributes:
        train: The rows to train on.
        validation: The rows to choose by.
        test: The rows to measure on.
        classes: The class names in their order.
        report: What was read and left out.
        seed: The seed of the drawn splits.
        task: What a label is: ``"single_label"``.
    """

    train: TextSplit
    validation: TextSplit
    test: TextSplit
    classes: tuple[str, ...]
    report: DataReport
    seed: int
    task: str = "single_label"

    @property
    def splits(self) -> dict[str, TextSplit]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all three splits, the same in every process and on every machine."""
        parts = [self.task, *(split.sha256 for split in self.splits.values())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"TextData({rows} rows; {len(self.classes)} classes)"

    def save(self, directory: str | Path) -> Path:
        """Writes the splits and the report into a folder, all or nothing.

        Args:
            directory: The folder; one that holds saved data is replaced.

        Returns:
            The folder.

        Raises:
            OutputError: If it cannot be written, or holds something else.
        """
        from tfapp.data.storage import save_text_data

        return save_text_data(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> TextData:
        """Reads what ``save`` wrote.

        Args:
            directory: The folder.

        Returns:
            The same data, with the same fingerprint.

        Raises:
            DataError: If it is missing or damaged.
        """
        from tfapp.data.storage import load_saved_text_data

        return load_saved_text_data(Path(directory))


def load_text_data(
    source: Any,
    *,
    text: str = "text",
    label: str = "label",
    validation: Any = None,
    test: Any = None,
    format: str | None = None,
    encoding: str = "utf-8",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> TextData:
    """Reads texts with labels, cleans them, and splits them for training, validation and test.

    Sources are paths of CSV, TSV, JSON lines or Parquet files, patterns of shards (``"train-*.csv"``), a
    folder with one sub-folder of text files per class, a ``tf.data.Dataset``, ``(texts, labels)``, a list of
    ``(text, label)`` pairs, a ``pandas.DataFrame``, or the name of a packaged data set.

    Texts are equal when they are after Unicode NFC and folding of white space. Equal texts are kept once;
    within a source, a text under several labels is dropped; a text that stands in several splits stays in
    the test split, else in the validation split. The report counts all of it.

    Args:
        source: The training rows, and those of every split that is not given by itself.
        text: The column or key of the texts.
        label: The column or key of the labels: strings, integers, booleans or floats.
        validation: A source of the validation rows; drawn from ``source`` when None.
        test: A source of the test rows; drawn from ``source`` when None.
        format: ``"csv"``, ``"tsv"``, ``"jsonl"``, ``"parquet"`` or ``"folder"``; by the suffix when None.
        encoding: The encoding of text files; UTF-8 may begin with a byte order mark.
        validation_fraction: Share of the rows of ``source`` to draw for validation, between 0 and 1.
        test_fraction: Share of the rows of ``source`` to draw for test, between 0 and 1.
        seed: Seed of the drawn splits; every class keeps its share in them.

    Returns:
        The splits, the class names in their order, and the report.

    Raises:
        DataError: If something cannot be used; the message names file, row or key, and the cure.
    """
    given = {"train": source, "validation": validation, "test": test}
    drawn = {"test": test_fraction, "validation": validation_fraction}
    fractions = {split: drawn[split] for split in drawn if given[split] is None}
    check_fractions(fractions)
    tables = {
        split: read_source(
            given[split],
            name="source" if split == "train" else split,
            text=text,
            label=label,
            format=format,
            encoding=encoding,
        )
        for split in SPLITS
        if split not in fractions
    }
    rows, dropped, classes = _prepare(tables)
    index = {name: number for number, name in enumerate(classes)}
    labels = {split: np.array([index[name] for name in part.names], np.int32) for split, part in rows.items()}
    check_class_sizes(labels["train"], classes, list(fractions), _words(dropped, "train"))
    splits = {split: _split(split, part, labels[split], classes) for split, part in rows.items()}
    if fractions:
        positions = stratified_split(rows["train"].keys, labels["train"], fractions, seed=seed)
        for split, at in positions.items():
            splits[split] = _split(split, rows["train"].take(at), labels["train"][at], classes)
    for split in SPLITS:
        if len(splits[split]) == 0:
            raise DataError(f"no rows are left for {split}: {_words(dropped, split)}. Give other rows.")
    report = _report(tables, splits, dropped)
    return TextData(splits["train"], splits["validation"], splits["test"], classes, report, seed)


def _prepare(tables: dict[str, Table]) -> tuple[dict[str, CleanRows], list[Dropped], tuple[str, ...]]:
    """Names the classes, cleans every source, and removes leaks between sources."""
    named = {split: name_labels(table) for split, table in tables.items()}
    class_of = order_classes({name for names in named.values() for name in set(names.tolist()) - {None}})
    rows: dict[str, CleanRows] = {}
    dropped: list[Dropped] = []
    for split, table in tables.items():
        names = np.array([class_of.get(name) for name in named[split].tolist()], dtype=object)
        rows[split], left_out = clean(table, names, split)
        dropped += left_out
    classes = find_classes(rows["train"], class_of)
    for split, part in rows.items():
        check_known_classes(part, split, classes)
    for split, other in (("validation", "test"), ("train", "test"), ("train", "validation")):
        if split in rows and other in rows:
            rows[split], left_out = remove_leaks(rows[split], split, rows[other], other)
            dropped += left_out
    return rows, dropped, classes


def _split(name: str, rows: CleanRows, labels: npt.NDArray[np.int32], classes: tuple[str, ...]) -> TextSplit:
    return TextSplit(name, tuple(rows.table.texts[rows.positions].tolist()), labels, classes)


def _words(dropped: list[Dropped], split: str) -> str:
    return ", ".join(
        f"{counted(entry.rows, 'row')} ({entry.reason})" for entry in dropped if entry.split == split
    )


def _report(tables: dict[str, Table], splits: dict[str, TextSplit], dropped: list[Dropped]) -> DataReport:
    sources, class_counts = {}, {}
    for split, table in tables.items():
        more = f" and {len(table.files) - 1:,} more" if len(table.files) > 1 else ""
        sources[split] = table.files[0] + more
    for split in SPLITS:
        part = splits[split]
        counts = np.bincount(part.labels, minlength=len(part.classes)).tolist()
        class_counts[split] = dict(zip(part.classes, counts, strict=True))
    rows_read = {split: len(table) for split, table in tables.items()}
    rows = {split: len(splits[split]) for split in SPLITS}
    return DataReport(sources, rows_read, rows, class_counts, tuple(dropped))
