"""Texts as rows that are encoded when a batch needs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class TextRows:
    """Texts as rows, for an augmentation that changes and encodes them.

    Args:
        texts: The texts.
        lengths: Their lengths in tokens as they are, by which batches are put together, int32 ``(rows,)``.
    """

    def __init__(self, texts: Sequence[str], lengths: npt.NDArray[np.int32]) -> None:
        self.lengths = lengths
        self._texts = tf.constant([text.encode() for text in texts], tf.string)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers ``texts``, UTF-8 strings ``(batch,)``."""
        return {"texts": tf.gather(self._texts, indices)}
