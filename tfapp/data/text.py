"""Text classification data: read, cleaned, split, fingerprinted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, text_keys
from tfapp.data.labels import check_class_sizes
from tfapp.data.preparing import clean_sources, number_classes, refuse_empty, report_facts, words_of
from tfapp.data.readers import read_source
from tfapp.data.readers.table import Columns
from tfapp.data.report import DataReport
from tfapp.data.split_data import SPLITS, SplitData, checked_labels, fingerprint_rows
from tfapp.data.splits import check_fractions, stratified_split


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
        labels = checked_labels(self.name, self.labels, len(self.texts), "texts", self.classes)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"TextSplit({self.name!r}, {len(self):,} rows, {len(self.classes)} classes)"

    @property
    def features(self) -> tuple[str, ...]:
        """What a model is asked about: the texts."""
        return self.texts

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of texts, labels and classes, the same in every process and on every machine."""
        return fingerprint_rows(b"tfapp text split 1\0", (self.classes, self.texts), self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class TextData(SplitData[TextSplit]):
    """Training, validation and test texts, and the report of how they came about.

    The attributes are those of `SplitData`.
    """

    kind: ClassVar[str] = "text"

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
        encoding: The encoding of text files; UTF-8 may begin with a byte order mark. ``"auto"`` detects
            UTF-8, UTF-16, GB18030 (GBK) and Big5, says so, and refuses a file that leaves doubt.
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
            Columns(text, label),
            name="source" if split == "train" else split,
            format=format,
            encoding=encoding,
        )
        for split in SPLITS
        if split not in fractions
    }
    keys = {split: text_keys(table) for split, table in tables.items()}
    rows, dropped, classes = clean_sources(tables, keys)
    labels = number_classes(rows, classes)
    check_class_sizes(labels["train"], classes, list(fractions), words_of(dropped, "train"))
    splits = {split: _split(split, part, labels[split], classes) for split, part in rows.items()}
    if fractions:
        positions = stratified_split(rows["train"].keys, labels["train"], fractions, seed=seed)
        for split, at in positions.items():
            splits[split] = _split(split, rows["train"].take(at), labels["train"][at], classes)
    refuse_empty(splits, dropped)
    rows_read = {split: len(table) for split, table in tables.items()}
    sources = {split: table.origin for split, table in tables.items()}
    report = DataReport(**report_facts(sources, rows_read, splits), dropped=tuple(dropped))
    return TextData(splits["train"], splits["validation"], splits["test"], classes, report, seed)


def _split(name: str, rows: CleanRows, labels: npt.NDArray[np.int32], classes: tuple[str, ...]) -> TextSplit:
    return TextSplit(name, tuple(rows.table.texts[rows.positions].tolist()), labels, classes)
