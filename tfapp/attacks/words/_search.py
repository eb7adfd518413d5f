"""The greedy search that attacks on strings share: all texts take each step together."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.attacks.words._result import WordAttackResult
from tfapp.attacks.words._target import Target
from tfapp.attacks.words._victim import PredictFn, Probabilities, Similarity, Victim
from tfapp.data.edits import Segments
from tfapp.errors import ConfigError

CandidatesOf = Callable[[Segments, np.random.Generator], Sequence[Sequence[str]]]


def greedy_search(
    predict_fn: PredictFn,
    texts: Sequence[str],
    labels: Any,
    *,
    cut: Callable[[str], Segments],
    candidates_of: CandidatesOf,
    similarity_fn: Similarity | None,
    max_changed: float,
    min_similarity: float,
    max_queries: int | None,
    max_seconds: float | None,
    batch_size: int,
    seed: int,
) -> WordAttackResult:
    """Replaces words of many texts until the model answers wrongly, the most important words first.

    Args:
        predict_fn: From texts to probabilities ``(n, num_classes)``.
        texts: The texts.
        labels: Their classes ``(texts,)``.
        cut: Cuts a text into words.
        candidates_of: What may take the place of each word of a text.
        similarity_fn: From originals and as many candidates to cosines; None lets every candidate pass.
        max_changed: Largest share of a text's words that may change, from 0 to 1.
        min_similarity: Least cosine with the original.
        max_queries: Most texts that the model is asked about for each text; None sets no limit.
        max_seconds: Wall time after which no more is asked; None sets no limit.
        batch_size: Most texts in one call of either function.
        seed: Seed of whatever is drawn.

    Returns:
        What was found.

    Raises:
        ConfigError: If a setting, a label or an answer of either function cannot be used.
    """
    _check_settings(max_changed, min_similarity, max_queries, max_seconds, batch_size)
    numbers = _checked_labels(texts, labels)
    victim = Victim(predict_fn, similarity_fn, batch_size=batch_size, max_seconds=max_seconds)
    targets = []
    for text, label in zip(texts, numbers.tolist(), strict=True):
        segments = cut(text)
        # Rounded down, after a hair is added: 0.29 of 100 words are 29, though 0.29 * 100 is a little less.
        most = math.floor(max_changed * len(segments.words) + 1e-9)
        rng = _generator(text, seed)
        targets.append(Target(text, segments, label=label, most=most, budget=max_queries, rng=rng))
    active = _start(victim, targets, candidates_of)
    while active := [target for target in active if target.goes_on()]:
        if victim.out_of_time():
            for target in active:
                target.cut_short = True
            break
        _step(victim, active, min_similarity)
    return WordAttackResult(
        texts=[t.segments.join(t.changes) if t.success else t.text for t in targets],
        success=np.array([t.success for t in targets], bool),
        queries=np.array([t.queries for t in targets], np.int64),
        changed=[tuple(sorted(t.changes)) if t.success else () for t in targets],
        similarity=np.array([t.similarity if t.success else 1.0 for t in targets], np.float64),
        clean_correct=np.array([t.clean_correct for t in targets], bool),
        out_of_budget=np.array([t.cut_short and not t.success for t in targets], bool),
        untouched=np.array([t.untouched for t in targets], bool),
        seconds=victim.seconds,
    )


def _start(victim: Victim, targets: Sequence[Target], candidates_of: CandidatesOf) -> list[Target]:
    """Asks about the originals and ranks their words; returns the targets that are worth a try."""
    # Without these answers there would be nothing to state, not even the clean accuracy.
    answers = victim.ask_all([target.text for target in targets])
    for target, answer in zip(targets, answers, strict=True):
        target.count([target.text], [answer])
        if target.label >= victim.num_classes:
            raise ConfigError(
                f"labels: {target.label} is no class of the {victim.num_classes} that predict_fn knows."
            )
        target.probabilities = answer
        target.clean_correct = int(answer.argmax()) == target.label
    active = [target for target in targets if target.clean_correct and target.most]
    for target in active:
        target.offer(candidates_of(target.segments, target.rng))
    for target in targets:
        target.untouched = target.clean_correct and not target.order
    # Words that may not change are not ranked: their rank would be of no use.
    asked = [target.without() for target in active]
    for target, texts, given in zip(active, asked, _answers(victim, asked), strict=True):
        target.count(texts, given)
        target.rank(given)
    return active


def _step(victim: Victim, targets: Sequence[Target], min_similarity: float) -> None:
    """Tries the next word of every text."""
    tried = [target.next_variants() for target in targets]
    pairs = [(target, variant) for target, found in zip(targets, tried, strict=True) for variant in found]
    cosines = victim.compare([(target.text, variant.text) for target, variant in pairs])
    for (target, variant), cosine in zip(pairs, cosines, strict=True):
        target.cut_short |= cosine is None
        variant.cosine = -np.inf if cosine is None else cosine
    for target, found in zip(targets, tried, strict=True):
        if victim.measures:
            found[:] = [variant for variant in found if variant.cosine >= min_similarity]
        del found[target.affordable(len(found)) :]
    asked = [[variant.text for variant in found] for found in tried]
    for target, found, texts, answers in zip(targets, tried, asked, _answers(victim, asked), strict=True):
        target.count(texts, answers)
        target.choose(found, answers)
        if target.cut_short:
            target.order.clear()


def _answers(victim: Victim, asked: Sequence[Sequence[str]]) -> list[list[Probabilities | None]]:
    """Asks about the texts of all targets at once."""
    answers = iter(victim.ask([text for texts in asked for text in texts]))
    return [list(itertools.islice(answers, len(texts))) for texts in asked]


def _generator(text: str, seed: int) -> np.random.Generator:
    """Random numbers that follow from the seed and the text, whatever other texts are attacked with it."""
    digest = hashlib.blake2b(f"{seed} {text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _check_settings(
    max_changed: float,
    min_similarity: float,
    max_queries: int | None,
    max_seconds: float | None,
    batch_size: int,
) -> None:
    if not 0 <= max_changed <= 1:
        raise ConfigError(f"max_changed = {max_changed}: it must be from 0 to 1.")
    if not -1 <= min_similarity <= 1:
        raise ConfigError(f"min_similarity = {min_similarity}: it must be from -1 to 1.")
    if max_queries is not None and max_queries < 1:
        raise ConfigError(f"max_queries = {max_queries}: it must be 1 or more, or None for no limit.")
    if max_seconds is not None and not max_seconds > 0:
        raise ConfigError(f"max_seconds = {max_seconds}: it must be more than 0, or None for no limit.")
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: it must be 1 or more.")


def _checked_labels(texts: Sequence[str], labels: Any) -> npt.NDArray[np.int64]:
    if isinstance(texts, str):
        raise ConfigError("texts: give a list of texts; put the single one into a list.")
    numbers = np.asarray(labels)
    whole = np.issubdtype(numbers.dtype, np.integer) or not len(texts)
    if numbers.shape != (len(texts),) or not whole:
        raise ConfigError(
            f"labels have the shape {numbers.shape} and the type {numbers.dtype}: there must be one whole "
            f"number for each of the {len(texts)} texts."
        )
    if numbers.size and numbers.min() < 0:
        raise ConfigError(f"labels: {numbers.min()} is no class; they are counted from 0.")
    return numbers.astype(np.int64)
