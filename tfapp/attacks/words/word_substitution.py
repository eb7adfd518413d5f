"""Synonyms in the place of the words that matter most: an attack in the manner of TextFooler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfapp.attacks.words._result import WordAttackResult
from tfapp.attacks.words._search import greedy_search
from tfapp.attacks.words._victim import PredictFn, Similarity
from tfapp.data.edits import Segments, segment
from tfapp.data.lexicon import load_substitutions

Candidates = Callable[[Sequence[str]], Sequence[Sequence[str]]]


def word_substitution(
    predict_fn: PredictFn,
    texts: Sequence[str],
    labels: Any,
    *,
    similarity_fn: Similarity | None,
    candidates: Candidates | None = None,
    max_changed: float = 0.2,
    min_similarity: float = 0.8,
    max_queries: int | None = None,
    max_seconds: float | None = None,
    batch_size: int = 1024,
    seed: int = 0,
) -> WordAttackResult:
    """Replaces words by synonyms until a classifier of English texts answers wrongly, or nothing helps.

    The words of each text are ranked by how much the right answer suffers when they are left out. Then, one
    word after another, the synonyms that keep the sentence similar enough are tried: of those that make the
    answer wrong the most similar one ends the search; if none does, the one that lowers the right class's
    probability most stays. Texts that the model gets wrong already are left as they are.

    It differs from the original in the source of synonyms (WordNet in place of counter-fitted vectors), in
    that candidates have the word's part of speech and form by construction in place of being tagged anew,
    and in the encoder of sentences. Texts of fewer than ``1 / max_changed`` words cannot change at all.
    WordNet's synonyms may be rare, or rude, and an article before them is not mended (``a amusing``). It is
    not for other languages, nor a measure of the worst case: a search through more combinations finds more,
    and each figure holds for its table of synonyms.

    All texts take each step together, so that ``predict_fn`` gets large batches; nothing is asked twice in a
    step. With the same seed and a ``predict_fn`` whose answers do not depend on the batch, a text's result
    does not depend on the other texts; a limit in seconds breaks that.

    Args:
        predict_fn: From a list of texts to probabilities ``(n, num_classes)``, in inference mode.
        texts: The texts.
        labels: Their classes, whole numbers ``(texts,)``.
        similarity_fn: From originals and as many candidates to their cosines;
            `tfapp.evaluation.similarity.sentence_similarity` makes MiniLM's. None lets every candidate pass.
        candidates: From the words of a text to what may take the place of each, best first; WordNet's
            synonyms when None. ``load_substitutions(half="second")`` is a table that shares nothing with
            what training on the first half has seen.
        max_changed: Largest share of a text's words that may change, rounded down to whole words, 0 to 1.
        min_similarity: Least cosine with the original, from -1 to 1.
        max_queries: Most texts that ``predict_fn`` is asked about for each text, itself included; None sets
            no limit.
        max_seconds: Wall time after which no more is asked; a running call is not stopped, and all originals
            are asked about in any case. None sets no limit.
        batch_size: Most texts in one call of either function, 1 or more.
        seed: Orders words of equal importance.

    Returns:
        What was found.

    Raises:
        ConfigError: If a setting, a label, or the shape of an answer of either function cannot be used.
        AssetError: If WordNet is needed and cannot be fetched.

    Reference:
        Jin et al. 2020, Is BERT Really Robust? (TextFooler), arXiv:1907.11932.
    """
    table = load_substitutions() if candidates is None else candidates

    def candidates_of(segments: Segments, rng: np.random.Generator) -> Sequence[Sequence[str]]:
        return table(segments.words)

    return greedy_search(
        predict_fn,
        texts,
        labels,
        cut=segment,
        candidates_of=candidates_of,
        similarity_fn=similarity_fn,
        max_changed=max_changed,
        min_similarity=min_similarity,
        max_queries=max_queries,
        max_seconds=max_seconds,
        batch_size=batch_size,
        seed=seed,
    )
