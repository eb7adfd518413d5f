"""Rows of one source as a single split, for models whose classes are known: nothing is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.data.cleaning import CleanRows, Unusable, clean, text_keys
from tfapp.data.image_limits import MAX_PIXELS
from tfapp.data.labels import check_known_classes, name_labels, order_classes
from tfapp.data.preparing import words_of
from tfapp.data.readers import read_source
from tfapp.data.readers.table import Array, Columns, Table
from tfapp.data.text import TextSplit
from tfapp.errors import DataError


def load_labelled_rows(
    source: str | Path,
    classes: Sequence[str],
    *,
    kind: str = "text",
    text: str = "text",
    image: str = "path",
    label: str = "label",
    encoding: str = "utf-8",
    max_pixels: int = MAX_PIXELS,
) -> Any:
    """Reads and cleans the rows of one source, in their order, to measure a model on.

    Args:
        source: What `load_text_data` or `load_image_data` take as a path. Of a folder of images with ``test``
            below it, the test images; or a folder of data that was saved, of which the test rows.
        classes: Names of the model's classes in their order; rows of others are refused.
        kind: ``"text"`` or ``"image"``.
        text: The column or key of texts.
        image: The column or key of paths of images.
        label: The column or key of labels.
        encoding: The encoding of text files.
        max_pixels: Most pixels that an image may have.

    Returns:
        A `TextSplit` or an `ImageSplit`, called ``"test"`` when it is one, otherwise ``"data"``.

    Raises:
        DataError: If it cannot be read, no row is left, or a label is none of the classes.
    """
    names = tuple(classes)
    if (Path(source) / "report.json").is_file():
        return _saved(Path(source), names, kind)
    if kind == "image":
        return _images(source, names, Columns(image, label, None, keyword="image"), max_pixels)
    table = read_source(source, Columns(text, label), name="data", format=None, encoding=encoding)
    rows = _cleaned(table, text_keys(table), names)
    return TextSplit("data", tuple(table.texts[rows.positions].tolist()), _numbers(rows, names), names)


def _saved(folder: Path, classes: tuple[str, ...], kind: str) -> Any:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData

    split = (ImageData if kind == "image" else TextData).load(folder).test
    if split.classes != classes:
        raise DataError(
            f"{folder} holds rows of the classes {list(split.classes)}, but the model has {list(classes)}."
        )
    return split


def _images(source: str | Path, classes: tuple[str, ...], columns: Columns, max_pixels: int) -> Any:
    from tfapp.data.image import ImageSplit
    from tfapp.data.image_duplicates import Thumbnails
    from tfapp.data.image_examination import examine_images
    from tfapp.data.readers.images import read_image_sources

    found = read_image_sources({"train": source, "validation": None, "test": None}, columns, format=None)
    name = "test" if "test" in found else "data"
    part = found.get("test", found["train"])
    with Thumbnails() as thumbnails:
        seen = examine_images(part.images, thumbnails, max_pixels=max_pixels)
    unreadable = Unusable("unreadable image", ~seen.readable)
    rows = _cleaned(part.table, (seen.keys, [unreadable]), classes)
    return ImageSplit(
        name, part.images.take(rows.positions), _numbers(rows, classes), classes, tuple(rows.keys.tolist())
    )


def _cleaned(table: Table, keys: tuple[Array, Sequence[Unusable]], classes: tuple[str, ...]) -> CleanRows:
    named = name_labels(table)
    class_of = order_classes(set(named.tolist()) - {None})
    names = np.array([class_of.get(name) for name in named.tolist()], dtype=object)
    rows, dropped = clean(table, keys[0], names, "data", keys[1])
    if not len(rows):
        raise DataError(f"{table.files[0]}: no usable rows are left: {words_of(dropped, 'data')}.")
    check_known_classes(rows, "data", classes)
    return rows


def _numbers(rows: CleanRows, classes: tuple[str, ...]) -> Any:
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[name] for name in rows.names.tolist()], np.int32)
