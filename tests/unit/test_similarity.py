"""How alike two sentences are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfapp.evaluation.similarity import sentence_similarity


@pytest.fixture(scope="module")
def similarity(minilm: Path) -> Callable[..., np.ndarray]:
    return sentence_similarity()


def test_the_measure_orders_sentences_as_readers_do(similarity: Callable[..., np.ndarray]) -> None:
    original = "the movie was surprisingly funny"
    same, close, far = similarity(
        [original] * 3, [original, "the film was surprisingly funny", "interest rates rose in march"]
    )
    assert same == pytest.approx(1.0, abs=1e-6)
    assert far < 0.3 < 0.8 < close < same


def test_the_cosines_are_those_of_the_published_encoder(similarity: Callable[..., np.ndarray]) -> None:
    # Computed from the same weights with transformers 5.23 and torch 2.13, mean
    # pooling, float32; two implementations of one network agree to about 1e-5.
    found = similarity(
        ["a stirring , funny and finally transporting film", "he bought a new car"],
        ["a touching , amusing and at last moving picture", "she sold her old bicycle"],
    )
    np.testing.assert_allclose(found, [0.60082, 0.40256], atol=1e-4)


def test_a_pair_does_not_depend_on_its_batch(similarity: Callable[..., np.ndarray]) -> None:
    originals = [f"a film about {number} dogs and their cats" for number in range(40)]
    candidates = [
        text.replace("film", "movie" if len(text) % 2 else "long, long story") for text in originals
    ]
    together = similarity(originals, candidates)
    alone = [similarity([a], [b])[0] for a, b in zip(originals, candidates, strict=True)]
    # float32 sums in another order over 384 numbers and six blocks.
    np.testing.assert_allclose(together, alone, atol=1e-5)
    backwards = similarity(originals[::-1], candidates[::-1])
    np.testing.assert_allclose(together, backwards[::-1], atol=1e-5)


def test_odd_texts_have_a_cosine(similarity: Callable[..., np.ndarray]) -> None:
    texts = ["", "🙂", "a \ud800 b", "word " * 2000]
    np.testing.assert_allclose(similarity(texts, texts), np.ones(4), atol=1e-5)
    assert np.isfinite(similarity(texts, texts[::-1])).all()
    assert similarity([], []).shape == (0,)
