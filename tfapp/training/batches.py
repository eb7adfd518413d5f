"""The batches of a phase: rows of the target, and behind them those of a source task where there is one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augmentation
from tfapp.data.bucketing import training_batches
from tfapp.data.mixed_rows import MixedRows, SourceRows, augment_both
from tfapp.training.features import PhaseRows
from tfapp.training.settings import TrainSettings
from tfapp.training.source import JoinedSource

_TARGET_SEEDS = 3
"""How many seeds, from the phase's own on, the order of the target's rows and their augmentation take."""


def phase_batches(
    given: PhaseRows,
    labels: npt.NDArray[np.int32],
    settings: TrainSettings,
    *,
    num_classes: int,
    class_weights: npt.NDArray[np.float32] | None,
    augmentation: Augmentation | None,
    source: JoinedSource | None,
    seed: int,
    first_epoch: int,
) -> tf.data.Dataset:
    """Makes the batches of a phase, epoch after epoch without end.

    Args:
        given: What the phase trains on.
        labels: Labels of the target's rows, int32 ``(rows,)``.
        settings: Batch size and sampling.
        num_classes: Number of the target's classes.
        class_weights: float32 ``(num_classes,)``, or None; rows of the source weigh 1.
        augmentation: What is still to be done to images, of both tasks.
        source: The task beside the target, or None.
        seed: Decides the order and everything else that is drawn.
        first_epoch: Where to begin.

    Returns:
        A dataset of ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``.
    """
    rows, beside = given.rows["train"], None
    augment = None if augmentation is None else augmentation.for_batches(num_classes)
    if source is not None:
        rows = MixedRows(rows, given.rows["source"])
        count = max(1, round(settings.batch_size * source.share))
        beside = SourceRows(
            rows, source.labels, batch_size=count, seed=seed + _TARGET_SEEDS, views=given.views
        )
        others = len(source.classes)
        if class_weights is not None:
            class_weights = np.concatenate([class_weights, np.ones(others, np.float32)])
        if augmentation is not None and augment is not None:
            of_source = augmentation.for_batches(others)
            augment = augment_both(augment, of_source, classes=(num_classes, others))
    return training_batches(
        rows,
        labels,
        batch_size=settings.batch_size,
        seed=seed,
        first_epoch=first_epoch,
        class_weights=class_weights,
        sampling=settings.sampling,
        views=given.views,
        augment=augment,
        beside=beside,
    )
