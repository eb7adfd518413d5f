"""Training on rows that stay in their shards: what it can do, and its batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augment, TextAugmentation
from tfapp.data.shards.service import batches_of, watching
from tfapp.data.shards.streamed import StreamedSplit, naming_bad_shards
from tfapp.data.shards.streaming import Stream, streamed_batches
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.training.settings import TrainSettings

if TYPE_CHECKING:
    from tfapp.training.source import SourceTask


def streamed_split(data: Any) -> StreamedSplit | None:
    """Finds training rows that stay in their shards.

    Args:
        data: What is trained on.

    Returns:
        The split, or None where all rows are held in memory.
    """
    return data.train if isinstance(data.train, StreamedSplit) else None


def class_counts(data: Any) -> npt.NDArray[np.int64]:
    """Counts the training rows of each class.

    Args:
        data: What is trained on.

    Returns:
        int64 ``(num_classes,)``.
    """
    streamed = streamed_split(data)
    if streamed is not None:
        return streamed.counts
    counts: npt.NDArray[np.int64] = np.bincount(data.train.labels, minlength=len(data.classes))
    return counts


def check_streamed(
    data: Any, settings: TrainSettings, *, model: Classifier, source: SourceTask | None
) -> None:
    """Refuses what needs all training rows in memory, where they stay in shards.

    Args:
        data: What is trained on.
        settings: How.
        model: The classifier.
        source: A task beside it, or None.

    Raises:
        ConfigError: When something does; the message tells what to do instead.
    """
    streamed = streamed_split(data)
    if streamed is None:
        return
    where = f"the training rows stay in {streamed.shards.directory}"
    if source is not None:
        raise ConfigError(
            f"{where}, and a source task takes its place in batches that are planned in memory: leave the "
            "source out, or give both as files."
        )
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        raise ConfigError(
            f"{where}, whose last batch of an epoch is not full, and TPUs take full batches only: give the "
            "rows as files."
        )
    if settings.sampling != "natural":
        raise ConfigError(
            f"{where}, and sampling = {settings.sampling!r} draws single rows: use class_weight='balanced', "
            "which needs the counts of the manifest only."
        )
    if getattr(model.preprocessor, "long_texts", None) == "windows":
        raise ConfigError(
            f"{where}, and how many windows they have is not known before: build the model with "
            "long_texts='truncate'."
        )
    if settings.adversarial is not None and settings.adversarial.refresh == "never":
        raise ConfigError(
            f"{where}, and augment.adversarial with refresh='never' replaces rows once and for all: use "
            "refresh='epoch'."
        )
    if streamed.service and isinstance(settings.augmentation, TextAugmentation):
        raise ConfigError(
            "edits and corruptions of texts are Python and cannot be made by the tf.data service: leave "
            "service or augment out."
        )


@contextlib.contextmanager
def reading(split: StreamedSplit | None) -> Iterator[None]:
    """Tells, when training fails in here, which shards are damaged or which services are gone.

    Args:
        split: The training rows; None where they are held in memory.

    Raises:
        DataError: With the shards' names.
        TrainingError: With the services' addresses; any other error passes.
    """
    if split is None:
        yield
        return
    with naming_bad_shards(split.shards), watching(split.service):
        yield


def stream_batches(
    split: StreamedSplit,
    settings: TrainSettings,
    *,
    model: Classifier,
    class_weights: npt.NDArray[np.float32] | None,
    augment: Augment | None,
    seed: int,
    first_epoch: int,
    first_step: int,
    pad_to: int,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes the batches of a phase, epoch after epoch without end.

    Args:
        split: The training rows.
        settings: Batch size.
        model: The classifier, whose preprocessor encodes texts or decodes images.
        class_weights: float32 ``(num_classes,)``, or None.
        augment: What is done to every batch.
        seed: Decides the order and everything else that is drawn.
        first_epoch: Where to begin.
        first_step: How many batches of that epoch are left out.
        pad_to: Widths of texts are rounded up to a multiple of this many tokens.
        share: Number of this worker and of all; see `streamed_batches`.

    Returns:
        A dataset of ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``.

    Raises:
        ConfigError: When a service does not answer.
    """
    stream = Stream(
        split.shards,
        model.preprocessor,
        tuple(model.input),
        settings.batch_size,
        seed,
        pad_to=pad_to,
        class_weights=class_weights,
        augment=augment,
        augments_texts=isinstance(settings.augmentation, TextAugmentation),
    )

    def make(stripe: tuple[int, int]) -> tf.data.Dataset:
        return streamed_batches(
            stream, first_epoch=first_epoch, first_step=first_step, share=share, stripe=stripe
        )

    return batches_of(split.service, make) if split.service else make((0, 1))
