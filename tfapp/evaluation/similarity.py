"""How alike two sentences are, by the packaged sentence encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.models import load_backbone
from tfapp.models.encoders import pool

SENTENCE_ENCODER = "minilm-l6"
_KEPT = 20_000


class TextVectors:
    """A network over any number of texts: one vector a text, short texts together, traced once.

    Args:
        network: From the tokenizer's outputs to one vector a row ``(batch, width)``.
        tokenizer: Makes its inputs.
        batch_size: Rows computed at once, 1 or more.
    """

    def __init__(self, network: keras.Model, tokenizer: Any, *, batch_size: int = 64) -> None:
        self._tokenizer, self._batch_size = tokenizer, batch_size
        self._inputs = tuple(network.input)

        def vectors(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
            return tf.cast(network(inputs, training=False), tf.float32)

        signature = {name: tf.TensorSpec([None, None], tf.int32) for name in self._inputs}
        self._vectors = tf.function(vectors, input_signature=[signature], autograph=False)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Computes the vectors of texts; of a text in windows, their mean.

        Args:
            texts: One or more texts.

        Returns:
            float32 ``(texts, width)``.
        """
        # A lone surrogate has no UTF-8; the tokenizer takes a question mark in its place.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        encoded = self._tokenizer.encode(clean)
        rows = self._tokenizer.make_rows(encoded, inputs=self._inputs)
        order = np.argsort(rows.lengths, kind="stable").astype(np.int32)
        parts = [
            self._vectors(rows.gather(order[start : start + self._batch_size])).numpy()
            for start in range(0, len(order), self._batch_size)
        ]
        vectors = np.concatenate(parts)[np.argsort(order, kind="stable")]
        averaged: npt.NDArray[np.float32] = encoded.average(vectors)
        return averaged


def sentence_similarity(
    *, batch_size: int = 64
) -> Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]:
    """Loads MiniLM as a measure of how alike two English sentences are.

    The measure is the cosine between the means of the encoder's token vectors, as the encoder was trained.
    The vectors of originals are kept, since an attack compares each with many candidates. It is not for other
    languages, and sees only the first 256 word pieces.

    Args:
        batch_size: Sentences computed at once, 1 or more.

    Returns:
        A function from originals and as many candidates to cosines, float64 ``(n,)``, from -1 to 1.

    Raises:
        AssetError: If the packaged weights cannot be fetched.

    Reference:
        Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084; the weights are all-MiniLM-L6-v2.
    """
    loaded = load_backbone(SENTENCE_ENCODER)
    network = keras.Model(loaded.backbone.input, pool(loaded.backbone, "mean"))
    vectors_of = TextVectors(network, loaded.tokenizer, batch_size=batch_size)
    kept: dict[str, npt.NDArray[np.float32]] = {}

    def units(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = vectors_of(texts)
        scaled: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return scaled

    def similarity(originals: Sequence[str], candidates: Sequence[str]) -> npt.NDArray[np.float64]:
        if not len(candidates):
            return np.zeros(0)
        if len(kept) > _KEPT:
            kept.clear()
        new = [text for text in dict.fromkeys(originals) if text not in kept]
        different = list(dict.fromkeys(candidates))
        vectors = units([*new, *different])
        kept.update(zip(new, vectors, strict=False))
        row = {text: number for number, text in enumerate(different, len(new))}
        before = np.stack([kept[text] for text in originals])
        after = vectors[[row[text] for text in candidates]]
        cosines: npt.NDArray[np.float64] = np.einsum("nd,nd->n", before, after, dtype=np.float64)
        return np.clip(cosines, -1.0, 1.0)

    return similarity
