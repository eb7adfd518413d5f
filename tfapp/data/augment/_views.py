"""Augmented views of images as rows, so that their features can be computed once and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfapp.data.augment._augmentation import Augmentation


class AugmentedViews:
    """Several augmented variants of every row, all rows of the first before all of the second.

    A batch's first row is part of its seed: gathered in the same batches, rows are the same.

    Args:
        rows: Rows of pixels, as `tfapp.data.bucketing.Rows` describes.
        augmentation: What is done to them; labels cannot be mixed here.
        views: How many variants, 1 or more.
        seed: Decides all of them, at least 0.
        input_name: The input that holds pixels.
    """

    def __init__(
        self, rows: Any, augmentation: Augmentation, *, views: int, seed: int, input_name: str = "pixels"
    ) -> None:
        self.lengths = np.tile(rows.lengths, views)
        self._rows, self._augmentation = rows, augmentation
        self._seed, self._input_name = seed, input_name

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers rows ``indices`` int32 ``(batch,)``, their pixels uint8 ``(batch, height, width, 3)``."""
        inputs = dict(self._rows.gather(indices % len(self._rows)))
        seed = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(indices[0], tf.int64)])
        inputs[self._input_name] = self._augmentation.images(inputs[self._input_name], seed=seed)
        return inputs
