"""Image classification data: read, checked, cleaned, split, fingerprinted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tfapp.data.cleaning import CleanRows, Unusable
from tfapp.data.grouped_splits import draw_splits
from tfapp.data.image_duplicates import Thumbnails
from tfapp.data.image_examination import Examination, check_readable, examine_images, summarise
from tfapp.data.image_limits import MAX_PIXELS
from tfapp.data.image_store import ImageStore
from tfapp.data.labels import check_class_sizes
from tfapp.data.near_duplicates import find_near_duplicates, remove_near_leaks
from tfapp.data.preparing import clean_sources, number_classes, refuse_empty, report_facts, words_of
from tfapp.data.readers.images import ImageFormat, read_image_sources
from tfapp.data.readers.table import Columns
from tfapp.data.report import UNREADABLE, DataReport
from tfapp.data.source_leaks import remove_target_leaks
from tfapp.data.split_data import SplitData, checked_labels, fingerprint_rows
from tfapp.data.splits import check_fractions
from tfapp.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images of one split with their labels.

    Attributes:
        name: ``"train"``, ``"validation"`` or ``"test"``.
        images: The encoded images; they are read when they are asked for.
        labels: int32 array (rows,): positions in ``classes``; read-only.
        classes: The class names in their order.
        digests: The sha256 of each image's bytes, in hexadecimal.
    """

    name: str
    images: ImageStore
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...]
    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        labels = checked_labels(self.name, self.labels, len(self.images), "images", self.classes)
        if len(self.digests) != len(self.images):
            raise DataError(
                f"split {self.name!r} has {len(self.images)} images and {len(self.digests)} checksums."
            )
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "digests", tuple(self.digests))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageSplit({self.name!r}, {len(self):,} rows, {len(self.classes)} classes)"

    @property
    def features(self) -> ImageStore:
        """What a model is asked about: the encoded images."""
        return self.images

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of images, labels and classes, the same in every process and on every machine."""
        return fingerprint_rows(b"tfapp image split 1\0", (self.classes, self.digests), self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class ImageData(SplitData[ImageSplit]):
    """Training, validation and test images, and the report of how they came about.

    The attributes are those of `SplitData`.
    """

    kind: ClassVar[str] = "image"

    @classmethod
    def load(cls, directory: str | Path) -> ImageData:
        """Reads what ``save`` wrote; the images themselves stay where they were.

        Args:
            directory: The folder.

        Returns:
            The same data, with the same fingerprint.

        Raises:
            DataError: If it is missing or damaged, or an image file is gone or has another size.
        """
        from tfapp.data.storage import load_saved_image_data

        return load_saved_image_data(Path(directory))


def load_image_data(
    source: Any,
    *,
    image: str = "path",
    label: str = "label",
    group: str | None = None,
    validation: Any = None,
    test: Any = None,
    format: ImageFormat | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    unreadable: Literal["skip", "refuse"] = "skip",
    near_duplicates: Literal["group", "keep"] = "group",
    max_pixels: int = MAX_PIXELS,
    target: ImageData | None = None,
    seed: int = 0,
) -> ImageData:
    """Finds images with labels, checks and cleans them, and splits them for training, validation and test.

    Sources are a folder with one sub-folder of images per class; a folder with ``train`` and perhaps
    ``validation`` and ``test`` above such folders, which then gives these splits; a ``.tar``, ``.tar.gz`` or
    ``.zip`` archive of either; CSV, TSV, JSON lines or Parquet files of paths (relative to that file) and
    labels; TFRecord shards of ``tf.train.Example``; ``(images, labels)`` with a uint8 or uint16 array;
    ``(paths, labels)``; a list of such pairs; a ``pandas.DataFrame``; or the name of a packaged data set.

    Every image is read and decoded once, a few at a time, as training will decode it. Images with equal bytes
    are kept once; within a source, an image under several labels is dropped; an image that stands in several
    splits stays in the test split, else in the validation split. The report counts all of it.

    Args:
        source: The training images, and those of every split that is not given otherwise.
        image: The column or key of the paths; of TFRecords the feature with the bytes of the image, where
            ``"path"`` stands for the usual names, of which the first record has one.
        label: The column or key of the labels: strings, integers, booleans or floats; of TFRecords
            ``"label"`` stands for the usual names too.
        group: The column or key of the groups, such as the object that was photographed several times: a
            group stays in one split. Rows without one are groups by themselves.
        validation: A source of the validation images; drawn from ``source`` when None.
        test: A source of the test images; drawn from ``source`` when None.
        format: ``"folder"``, ``"archive"``, ``"csv"``, ``"tsv"``, ``"jsonl"``, ``"parquet"`` or
            ``"tfrecord"``; by the suffix when None.
        validation_fraction: Share of the images of ``source`` to draw for validation, between 0 and 1.
        test_fraction: Share of the images of ``source`` to draw for test, between 0 and 1.
        unreadable: ``"skip"`` leaves images out that cannot be used, ``"refuse"`` lists them in an error.
        near_duplicates: ``"group"`` keeps near duplicates in one split where splits are drawn, and removes
            images that are nearly in a held-out split where they are given; ``"keep"`` only reports them.
        max_pixels: Most pixels that an image may have.
        target: The data of the target, when these images are those of a source task: images of ``source``
            that equal one of its validation or test images are removed, and those that nearly do unless
            ``near_duplicates`` is ``"keep"``.
        seed: Seed of the drawn splits; every class keeps its share in them as nearly as groups allow.

    Returns:
        The splits, the class names in their order, and the report.

    Raises:
        DataError: If something cannot be used; the message names file or row, and the cure.
    """
    _check_choice("unreadable", unreadable, ("skip", "refuse"))
    _check_choice("near_duplicates", near_duplicates, ("group", "keep"))
    given = {"train": source, "validation": validation, "test": test}
    drawn = {"test": test_fraction, "validation": validation_fraction}
    sources = read_image_sources(given, Columns(image, label, group, keyword="image"), format=format)
    fractions = {split: drawn[split] for split in drawn if split not in sources}
    check_fractions(fractions)
    with Thumbnails() as thumbnails:
        found: dict[str, Examination] = {}
        for split, part in sources.items():
            found[split] = examine_images(part.images, thumbnails, max_pixels=max_pixels)
            check_readable(found[split], part, split, refuse=unreadable == "refuse")
        tables = {split: part.table for split, part in sources.items()}
        keys = {split: (part.keys, _unusable(part)) for split, part in found.items()}
        rows, dropped, classes = clean_sources(tables, keys)
        overlap = None
        if target is not None:
            near = near_duplicates == "group"
            rows["train"], overlap = remove_target_leaks(
                rows["train"], found["train"], thumbnails, target, dropped, near=near
            )
        findings = find_near_duplicates(rows, found, thumbnails)
    clusters = None
    if near_duplicates == "group":
        rows, clusters = remove_near_leaks(rows, findings, dropped)
    labels = number_classes(rows, classes)
    check_class_sizes(labels["train"], classes, list(fractions), words_of(dropped, "train"))
    splits = {
        split: _split(split, sources[split].images, kept, labels[split], classes)
        for split, kept in rows.items()
    }
    if fractions:
        positions = draw_splits(rows["train"], labels["train"], clusters, classes, fractions, seed)
        for split, at in positions.items():
            images, some = sources["train"].images, rows["train"].take(at)
            splits[split] = _split(split, images, some, labels["train"][at], classes)
    refuse_empty(splits, dropped)
    facts = report_facts(
        {split: part.origin for split, part in sources.items()},
        {split: len(part) for split, part in sources.items()},
        splits,
    )
    summary = summarise(found.values(), (*findings.report, *([] if overlap is None else [overlap])))
    report = DataReport(**facts, dropped=tuple(dropped), images=summary)
    return ImageData(splits["train"], splits["validation"], splits["test"], classes, report, seed)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DataError(f"{name}={value!r} is unknown; {nearest(str(value), choices)}")


def _unusable(found: Examination) -> list[Unusable]:
    reasons = sorted({fault for fault in found.faults if fault is not None})
    return [Unusable(f"{UNREADABLE}{reason}", found.faults == reason) for reason in reasons]


def _split(
    name: str, images: ImageStore, rows: CleanRows, labels: npt.NDArray[np.int32], classes: tuple[str, ...]
) -> ImageSplit:
    return ImageSplit(name, images.take(rows.positions), labels, classes, tuple(rows.keys.tolist()))
