"""Slips of the pen in the words that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfapp.attacks.words._result import WordAttackResult
from tfapp.attacks.words._search import greedy_search
from tfapp.attacks.words._victim import PredictFn, Similarity
from tfapp.data.edits import Chinese, Edit, Segments, chinese_edits, has_han, resolve_edits, segment

CHARACTER_EDITS = ("swap", "drop", "insert", "keyboard", "homoglyph")


def default_edits(texts: Sequence[str]) -> tuple[str, ...]:
    """Names the edits that go with texts.

    Args:
        texts: The texts.

    Returns:
        `CHARACTER_EDITS`; and where any text holds a Chinese character the edits of Chinese words too, those
        that need no package and those whose packages are installed.
    """
    return (*CHARACTER_EDITS, *chinese_edits()) if has_han(texts) else CHARACTER_EDITS


def character_edits(
    predict_fn: PredictFn,
    texts: Sequence[str],
    labels: Any,
    *,
    edits: Sequence[str | Edit] | None = None,
    similarity_fn: Similarity | None = None,
    max_changed: float = 0.2,
    min_similarity: float = 0.8,
    max_queries: int | None = None,
    max_seconds: float | None = None,
    batch_size: int = 1024,
    chinese: Chinese = "auto",
    seed: int = 0,
) -> WordAttackResult:
    """Edits the letters of words until a classifier answers wrongly, or nothing helps.

    The search is `word_substitution`'s; the candidates of a word are what the edits make of it, each word
    edited once. Readers recognise the words, which a model of word pieces may not. There is no limit on
    similarity unless ``similarity_fn`` is given: sentence encoders read misspelt words as badly as the model
    under attack. Texts of fewer than ``1 / max_changed`` words cannot change at all. It says little about
    models behind a spelling corrector.

    Words in Chinese characters have edits of their own, whose names begin with ``zh_``; where jieba is
    installed, the words are jieba's. Without ``edits``, the figure on Chinese texts depends on what is
    installed of the extra ``zh``: name the edits where figures are to be compared.

    Args:
        predict_fn: From a list of texts to probabilities ``(n, num_classes)``, in inference mode.
        texts: The texts.
        labels: Their classes, whole numbers ``(texts,)``.
        edits: Names of `tfapp.data.edits.TEXT_EDITS`, or edits; `default_edits` when None.
        similarity_fn: As in `word_substitution`.
        max_changed: As in `word_substitution`.
        min_similarity: Least cosine with the original where ``similarity_fn`` is given.
        max_queries: As in `word_substitution`.
        max_seconds: As in `word_substitution`.
        batch_size: As in `word_substitution`.
        chinese: How Chinese texts are cut into words: ``"jieba"``, ``"characters"``, or ``"auto"`` for jieba
            where it is installed.
        seed: Seed of what the edits draw, and of the order of words of equal importance.

    Returns:
        What was found.

    Raises:
        ConfigError: As `word_substitution`; or if an edit is unknown, or needs a package that is missing.

    Reference:
        Pruthi et al. 2019, Combating Adversarial Misspellings, arXiv:1905.11268; Gao et al. 2018,
        Black-box Generation of Adversarial Text Sequences (DeepWordBug), arXiv:1801.04354.
    """
    chosen = resolve_edits(default_edits(texts) if edits is None else edits)

    def candidates_of(segments: Segments, rng: np.random.Generator) -> Sequence[Sequence[str]]:
        return [
            list(dict.fromkeys(other for edit in chosen for other in edit(word, rng)))
            for word in segments.words
        ]

    return greedy_search(
        predict_fn,
        texts,
        labels,
        cut=lambda text: segment(text, chinese=chinese),
        candidates_of=candidates_of,
        similarity_fn=similarity_fn,
        max_changed=max_changed,
        min_similarity=min_similarity,
        max_queries=max_queries,
        max_seconds=max_seconds,
        batch_size=batch_size,
        seed=seed,
    )
