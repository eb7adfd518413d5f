"""A text classifier as attacks on strings see it: texts in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.evaluation.robustness.answers import probabilities_of
from tfapp.evaluation.similarity import TextVectors


class TextModel:
    """A classifier from texts to probabilities, which counts what it is asked.

    Args:
        model: A text classifier.
        batch_size: Rows computed at once.

    Attributes:
        queries: Texts that were asked about so far.
    """

    def __init__(self, model: Any, *, batch_size: int) -> None:
        self.queries = 0
        self._temperature, self._num_classes = float(model.temperature), len(model.classes)
        self._logits = TextVectors(model, model.preprocessor, batch_size=batch_size)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Computes probabilities, at the model's temperature.

        Args:
            texts: Any number of texts.

        Returns:
            ``(texts, num_classes)``.
        """
        self.queries += len(texts)
        if not len(texts):
            return np.zeros((0, self._num_classes))
        return probabilities_of(self._logits(texts), self._temperature)
