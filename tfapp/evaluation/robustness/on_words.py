"""Robust accuracy of text classifiers against changed words and letters."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError, nearest
from tfapp.evaluation.alarms import Alarm, nothing_to_try, search_cut_short
from tfapp.evaluation.robustness.measured import Measured
from tfapp.evaluation.robustness.result import AttackFigures
from tfapp.evaluation.robustness.settings import (
    EMBEDDING_ATTACKS,
    WORD_ATTACKS,
    AttackSettings,
    check_options,
    described,
)
from tfapp.evaluation.robustness.text_model import TextModel
from tfapp.evaluation.similarity import SENTENCE_ENCODER, sentence_similarity

Similarity = Callable[[Sequence[str], Sequence[str]], Any]
Step = tuple[str, Callable[..., Any], dict[str, Any]]


def measure_words(
    model: Any,
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    attack: str | Callable[..., Any],
    settings: AttackSettings,
    options: Mapping[str, Any],
    *,
    batch_size: int,
    similarity_fn: Similarity | str | None = SENTENCE_ENCODER,
) -> Measured:
    """Attacks the words of texts through the model's answers.

    Args:
        model: A text classifier.
        texts: The texts.
        labels: Their classes ``(rows,)``.
        attack: A name, or a function.
        settings: What was asked for.
        options: Further arguments of the attack.
        batch_size: Rows computed at once.
        similarity_fn: Cosines of sentences for attacks that keep to similar ones: a function, MiniLM's by its
            name, or None for no such limit.

    Returns:
        What was measured.

    Raises:
        ConfigError: If the attack is unknown or lacks a setting.
        AssetError: If what the attack needs cannot be fetched.
    """
    from tfapp.attacks.words import character_edits, default_edits

    epsilon, norm = settings.epsilon_of("words"), settings.norm_of("words")
    steps = word_steps(attack, settings, options)
    check_options(options, "words", similarity=any(_wants_similarity(run) for _, run, _ in steps))
    if isinstance(similarity_fn, str) and similarity_fn != SENTENCE_ENCODER:
        raise ConfigError(
            f"similarity_fn = {similarity_fn!r}: give {SENTENCE_ENCODER!r}, a function from originals and "
            "candidates to cosines, or None."
        )
    victim = TextModel(model, batch_size=batch_size)
    before = victim(texts)
    survived = before.argmax(axis=1) == labels
    perturbed = list(texts)
    figures: list[AttackFigures] = []
    alarms: list[Alarm | None] = []
    for name, run, arguments in steps:
        rows = np.flatnonzero(survived)
        asked, started = victim.queries, time.perf_counter()
        arguments = {**arguments, "max_changed": epsilon, "seed": settings.seed}
        if run is character_edits and arguments.get("edits") is None:
            arguments["edits"] = default_edits(texts)  # named, so that the figure states them
        stated = described(run, arguments)
        if _wants_similarity(run):
            if similarity_fn == SENTENCE_ENCODER:
                similarity_fn = sentence_similarity()
                stated["similarity"] = SENTENCE_ENCODER
            arguments["similarity_fn"] = similarity_fn
        if arguments.get("similarity_fn") is None:
            stated.pop("min_similarity", None)  # of no effect without it
        found = run(victim, [texts[row] for row in rows.tolist()], labels[rows], **arguments)
        queries = victim.queries - asked
        made = list(found.texts)
        # The model is asked again: what counts is its answer, not what the attack says of it.
        fooled = victim(made).argmax(axis=1) != labels[rows]
        for row, text in zip(rows[fooled], np.array(made, dtype=object)[fooled], strict=True):
            perturbed[row] = text
        survived[rows[fooled]] = False
        for attribute, alarm in (("out_of_budget", search_cut_short), ("untouched", nothing_to_try)):
            count = int(np.sum(getattr(found, attribute, np.zeros(len(rows), bool)) & ~fooled))
            alarms.append(alarm(attack=name, rows=count, examples=len(labels)))
        figures.append(
            AttackFigures(
                name=name,
                attacked=len(rows),
                fooled=int(fooled.sum()),
                robust_accuracy=float(survived.mean()),
                queries=queries,
                seconds=time.perf_counter() - started,
                settings=stated,
            )
        )
    return Measured(
        domain="words",
        norm=norm,
        epsilon=epsilon,
        before=before,
        after=victim(perturbed),
        survived=survived,
        per_attack=tuple(figures),
        originals=texts,
        perturbed=perturbed,
        handed_on=tuple(perturbed),
        alarms=tuple(alarm for alarm in alarms if alarm is not None),
        checked=("search_cut_short", "nothing_to_try"),
    )


def _wants_similarity(attack: Callable[..., Any]) -> bool:
    parameter = inspect.signature(attack).parameters.get("similarity_fn")
    return parameter is not None and parameter.default is parameter.empty


def word_steps(
    attack: str | Callable[..., Any], settings: AttackSettings, options: Mapping[str, Any]
) -> list[Step]:
    """Lists the attacks on strings that run one after another.

    Args:
        attack: A name, or a function.
        settings: What was asked for.
        options: Further arguments of the attack; each goes to the attacks of an ensemble that take it.

    Returns:
        Names, attacks and their own arguments.

    Raises:
        ConfigError: If the attack is unknown, or no attack takes an option.
    """
    from tfapp.attacks import words

    if not isinstance(attack, str):
        return [(settings.attack, attack, {**settings.own_arguments(settings.attack, attack), **options})]
    choices = ("standard", *WORD_ATTACKS, *EMBEDDING_ATTACKS)
    if attack not in choices:
        raise ConfigError(f"unknown attack on texts {attack!r}; {nearest(attack, choices)}")
    names = WORD_ATTACKS if attack == "standard" else (attack,)
    taken = {name: set(inspect.signature(words.WORD_ATTACKS[name]).parameters) for name in names}
    for option in options:
        if not any(option in known for known in taken.values()):
            known = sorted(set.union(*taken.values()))
            raise ConfigError(f"attack {attack!r} has no setting {option!r}; {nearest(option, known)}")
    return [
        (
            name,
            words.WORD_ATTACKS[name],
            {
                **settings.own_arguments(name, words.WORD_ATTACKS[name]),
                **{option: value for option, value in options.items() if option in taken[name]},
            },
        )
        for name in names
    ]
