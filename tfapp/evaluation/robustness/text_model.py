"""A text classifier as attacks on strings see it, and the measure of how alike two sentences are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import softmax  # type: ignore[import-untyped]

SENTENCE_ENCODER = "minilm-l6"
_SENTENCES_AT_ONCE = 64


class TextFunction:
    """A network over any number of texts: short ones together, compiled once for all lengths.

    Args:
        network: From token ids to one vector a row ``(batch, width)``, in inference mode.
        preprocessor: The tokenizer.
        batch_size: Rows computed at once.
    """

    def __init__(self, network: Any, preprocessor: Any, *, batch_size: int) -> None:
        self._preprocessor, self._batch_size = preprocessor, batch_size
        self._inputs = tuple(network.input)

        def outputs(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
            return tf.cast(network(inputs, training=False), tf.float32)

        spec = {name: tf.TensorSpec([None, None], tf.int32) for name in self._inputs}
        self._outputs = tf.function(outputs, input_signature=[spec], autograph=False)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Computes the vectors of texts; of one in windows their mean.

        Args:
            texts: One or more texts.

        Returns:
            ``(texts, width)``.
        """
        encoded = self._preprocessor.encode(list(texts))
        rows = self._preprocessor.make_rows(encoded, inputs=self._inputs)
        order = np.argsort(rows.lengths, kind="stable")
        parts = [
            self._outputs(rows.gather(tf.constant(order[start : start + self._batch_size], tf.int32))).numpy()
            for start in range(0, len(order), self._batch_size)
        ]
        vectors = np.concatenate(parts)[np.argsort(order, kind="stable")]
        averaged: npt.NDArray[np.float32] = encoded.average(vectors)
        return averaged


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
        self._logits = TextFunction(model, model.preprocessor, batch_size=batch_size)

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
        logits = self._logits(texts).astype(np.float64)
        probabilities: npt.NDArray[np.float64] = softmax(logits / self._temperature, axis=1)
        return probabilities


def sentence_similarity() -> Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]:
    """Loads MiniLM as a measure of how alike two sentences are: the cosine of its means over tokens.

    Returns:
        ``(originals, candidates) -> (rows,)``, from -1 to 1.

    Raises:
        AssetError: If the packaged weights cannot be fetched.

    Reference:
        Reimers and Gurevych (2019), "Sentence-BERT", arXiv:1908.10084; the weights are all-MiniLM-L6-v2.
    """
    import keras

    from tfapp.models import load_backbone
    from tfapp.models.encoders import pool

    loaded = load_backbone(SENTENCE_ENCODER)
    network = keras.Model(loaded.backbone.input, pool(loaded.backbone, "mean"))
    encode = TextFunction(network, loaded.tokenizer, batch_size=_SENTENCES_AT_ONCE)
    known: dict[str, npt.NDArray[np.float32]] = {}  # the originals, which come again with every candidate

    def units(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = encode(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        scaled: npt.NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
        return scaled

    def similarity(originals: Sequence[str], candidates: Sequence[str]) -> npt.NDArray[np.float64]:
        if not len(originals):
            return np.zeros(0)
        new = sorted(set(originals) - known.keys())
        if new:
            known.update(zip(new, units(new), strict=True))
        cosines: npt.NDArray[np.float64] = np.sum(
            np.stack([known[text] for text in originals]) * units(candidates), axis=1, dtype=np.float64
        )
        return cosines

    return similarity
