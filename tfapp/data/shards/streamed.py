"""Data of which the training rows stay in their shards, and validation and test rows are held as ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tfapp.data.image import ImageData, ImageSplit
from tfapp.data.readers.table import Columns
from tfapp.data.shards.manifest import FEATURES, MANIFEST, Shards, load_shards
from tfapp.data.text import TextData, TextSplit
from tfapp.errors import DataError

_SAMPLE = {"text": 10_000, "image": 1_000}
_BATCH = 1024


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Training rows that are read batch by batch.

    Attributes:
        shards: The shards.
        sample: The first rows of the shards, which are shuffled: what stands for all where a few must do,
            as for the lengths of texts and the calibration of ``int8``.
        counts: Rows of each class, int64 ``(num_classes,)``.
        service: Addresses of the tf.data services that make the batches; none where this process does.
    """

    shards: Shards
    sample: TextSplit | ImageSplit
    counts: npt.NDArray[np.int64]
    service: tuple[str, ...] = ()

    name = "train"

    def __len__(self) -> int:
        return self.shards.manifest.rows["train"]

    def __repr__(self) -> str:
        return f"StreamedSplit({len(self):,} rows in {len(self.shards.of('train')):,} shards)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in their order."""
        return self.shards.classes

    @property
    def features(self) -> Sequence[Any]:
        """Some of the texts or images, drawn at random."""
        return self.sample.features

    @property
    def sha256(self) -> str:
        """Fingerprint of classes and shards."""
        return self.shards.sha256("train")


class StreamedTextData(TextData):
    """Texts, of which those to train on stay in shards; ``train`` is a `StreamedSplit`."""

    def save(self, directory: str | Path) -> Path:
        """Refuses: the shards are what is saved."""
        raise _cannot_save(self.train)


class StreamedImageData(ImageData):
    """Images, of which those to train on stay in shards; ``train`` is a `StreamedSplit`."""

    def save(self, directory: str | Path) -> Path:
        """Refuses: the shards are what is saved."""
        raise _cannot_save(self.train)


def _cannot_save(split: Any) -> DataError:
    return DataError(f"the training rows stay in {split.shards.directory}: copy that folder instead.")


def is_sharded(path: str | Path) -> bool:
    """Tells a folder of finished shards from other sources.

    Args:
        path: A path.

    Returns:
        Whether it holds a manifest of shards.
    """
    return (Path(path) / MANIFEST).is_file()


def load_sharded_data(
    directory: str | Path, *, service: str | Sequence[str] | None = None, verify: bool = False
) -> TextData | ImageData:
    """Opens shards to train on, without reading the training rows.

    Args:
        directory: What `write_shards` wrote.
        service: Addresses of tf.data services, such as ``"grpc://127.0.0.1:5050"``, which make the training
            batches in this process's stead; each makes its part of them.
        verify: Whether the checksums of all shards are compared.

    Returns:
        The data; ``train`` is a `StreamedSplit`, ``validation`` and ``test`` are held in memory as ever
        (images stay in their shards until they are asked for).

    Raises:
        DataError: If a shard is missing or damaged.
    """
    shards = load_shards(directory, verify=verify)
    manifest = shards.manifest
    counts = np.array([manifest.class_counts["train"][name] for name in shards.classes], np.int64)
    services = (service,) if isinstance(service, str) else tuple(service or ())
    with naming_bad_shards(shards):
        read = _texts if manifest.kind == "text" else _images
        sample = read(shards, "train", limit=_SAMPLE[manifest.kind])
        held_out = {split: read(shards, split) for split in ("validation", "test")}
    data_type: Any = StreamedTextData if manifest.kind == "text" else StreamedImageData
    return cast(
        "TextData | ImageData",
        data_type(
            StreamedSplit(shards, sample, counts, services),
            held_out["validation"],
            held_out["test"],
            shards.classes,
            shards.report,
            manifest.seed,
        ),
    )


@contextlib.contextmanager
def naming_bad_shards(shards: Shards) -> Iterator[None]:
    """Tells, when TensorFlow fails in here at shards that are missing or damaged, which they are.

    Args:
        shards: The shards that are read.

    Raises:
        DataError: With their names; any other error passes.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError:
        shards.check(verify=True)
        raise


def _texts(shards: Shards, split: str, *, limit: int | None = None) -> TextSplit:
    import tensorflow as tf

    scalar = tf.io.FixedLenFeature([], tf.string)
    feature = FEATURES["text"]
    number = {name: index for index, name in enumerate(shards.classes)}
    texts: list[str] = []
    labels: list[int] = []
    records = tf.data.TFRecordDataset(shards.paths(split))
    records = records if limit is None else records.take(limit)
    for batch in records.batch(_BATCH):
        parsed = tf.io.parse_example(batch, {feature: scalar, "label": scalar})
        texts += [text.decode() for text in parsed[feature].numpy().tolist()]
        labels += [number[name.decode()] for name in parsed["label"].numpy().tolist()]
    return TextSplit(split, tuple(texts), np.array(labels, np.int32), shards.classes)


def _images(shards: Shards, split: str, *, limit: int | None = None) -> ImageSplit:
    import hashlib

    from tfapp.data.readers.tfrecord import read_tfrecords

    paths = [Path(path) for path in shards.paths(split)]
    # As many shards as hold the rows that are wanted: each is read as a whole.
    rows = np.cumsum([shard.rows for shard in shards.of(split)])
    wanted = len(paths) if limit is None else min(len(paths), int(np.searchsorted(rows, limit)) + 1)
    columns = Columns(FEATURES["image"], "label", keyword="image")
    found = read_tfrecords(paths[:wanted], columns, origin=str(shards.directory))
    number = {name.encode(): index for index, name in enumerate(shards.classes)}
    labels = np.array([number[name] for name in found.table.labels[:limit].tolist()], np.int32)
    images = found.images.take(slice(limit))
    digests = tuple(hashlib.sha256(image).hexdigest() for image in images)
    return ImageSplit(split, images, labels, shards.classes, digests)
