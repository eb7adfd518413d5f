"""The batches of a phase: rows of the target, and behind them those of a source task where there is one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augmentation, TextAugmentation
from tfapp.data.bucketing import training_batches
from tfapp.data.mixed_rows import MixedRows, SourceRows, augment_both
from tfapp.data.shards.streamed import StreamedSplit
from tfapp.models import Classifier
from tfapp.training.features import PhaseRows
from tfapp.training.settings import TrainSettings
from tfapp.training.source import JoinedSource
from tfapp.training.streamed import stream_batches

_TARGET_SEEDS = 3
"""How many seeds, from the phase's own on, the order of the target's rows and their augmentation take."""


def phase_batches(
    given: PhaseRows,
    labels: npt.NDArray[np.int32] | None,
    settings: TrainSettings,
    *,
    model: Classifier,
    class_weights: npt.NDArray[np.float32] | None,
    augmentation: Augmentation | TextAugmentation | None,
    source: JoinedSource | None,
    streamed: StreamedSplit | None = None,
    seed: int,
    first_epoch: int,
    first_step: int = 0,
    pad_to: int = 1,
    variants: int = 0,
    share: tuple[int, int] = (0, 1),
    full: bool = False,
) -> tf.data.Dataset:
    """Makes the batches of a phase, epoch after epoch without end.

    Args:
        given: What the phase trains on.
        labels: Labels of the target's rows, int32 ``(rows,)``; None where they are streamed.
        settings: Batch size and sampling.
        model: The classifier of the target's classes.
        class_weights: float32 ``(num_classes,)``, or None; rows of the source weigh 1.
        augmentation: What is still to be done to images or texts, of both tasks.
        source: The task beside the target, or None.
        streamed: The training rows where they stay in shards, or None.
        seed: Decides the order and everything else that is drawn.
        first_epoch: Where to begin.
        first_step: How many batches of that epoch are left out.
        pad_to: Widths of texts that are changed are rounded up to a multiple of this many tokens.
        variants: How many changed variants of each text stand beside it; see `TextAugmentation.for_batches`.
        share: Which part of every batch is wanted, and of how many; see `training_batches`.
        full: Whether all batches must have the same number of rows; see there.

    Returns:
        A dataset of ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``.
    """
    rows, beside, num_classes = given.rows["train"], None, model.num_classes
    augment = None
    if isinstance(augmentation, Augmentation):
        augment = augmentation.for_batches(num_classes)
    elif augmentation is not None:
        augment = augmentation.for_batches(
            model.preprocessor, inputs=tuple(model.input), pad_to=pad_to, variants=variants
        )
    if streamed is not None:
        return stream_batches(
            streamed,
            settings,
            model=model,
            class_weights=class_weights,
            augment=augment,
            seed=seed,
            first_epoch=first_epoch,
            first_step=first_step,
            pad_to=pad_to,
            share=share,
        )
    assert labels is not None
    if source is not None:
        rows = MixedRows(rows, given.rows["source"])
        count = max(1, round(settings.batch_size * source.share))
        beside = SourceRows(
            rows, source.labels, batch_size=count, seed=seed + _TARGET_SEEDS, views=given.views
        )
        others = len(source.classes)
        if class_weights is not None:
            class_weights = np.concatenate([class_weights, np.ones(others, np.float32)])
        if isinstance(augmentation, Augmentation) and augment is not None:
            of_source = augmentation.for_batches(others)
            augment = augment_both(augment, of_source, classes=(num_classes, others))
    return training_batches(
        rows,
        labels,
        batch_size=settings.batch_size,
        seed=seed,
        first_epoch=first_epoch,
        first_step=first_step,
        class_weights=class_weights,
        sampling=settings.sampling,
        views=given.views,
        augment=augment,
        beside=beside,
        share=share,
        full=full,
    )
