"""Measuring how much of a model's accuracy is left under attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfapp.data.drawing import draw_rows
from tfapp.errors import ConfigError
from tfapp.evaluation.checks import check_split
from tfapp.evaluation.robustness.result import Robustness
from tfapp.evaluation.robustness.settings import EMBEDDING_ATTACKS, AttackSettings

Attack = Callable[..., Any]


def evaluate_robustness(
    model: Any,
    split: Any,
    *,
    attack: str | Attack = "standard",
    epsilon: float | None = None,
    norm: str | None = None,
    num_steps: int | None = None,
    num_restarts: int | None = None,
    max_queries: int | None = None,
    max_seconds: float | None = None,
    options: Mapping[str, Any] | None = None,
    examples: int = 500,
    batch_size: int | None = None,
    similarity_fn: Callable[[Sequence[str], Sequence[str]], Any] | str | None = "minilm-l6",
    alarms: bool = True,
    seed: int = 0,
) -> Robustness:
    """Measures clean and robust accuracy on rows of a split.

    The attacker knows the labels and, for pixels and embeddings, the model's weights; the model is in
    inference mode. A row that is wrong before the attack counts as wrong after it. With the default, rows
    go through several attacks, and one that any of them fools is lost; a single attack only bounds the
    robust accuracy from above, the weaker the looser. Pixels are attacked as the network takes them, after
    decoding and resizing, in fractions of grey levels.

    Args:
        model: A classifier with its preprocessor.
        split: Rows with labels, of texts or images.
        attack: For images ``"standard"`` (AutoAttack's four in its order), ``"fgsm"``, ``"pgd"``, ``"apgd"``,
            ``"apgd_t"``, ``"fab"`` or ``"square"``; for texts ``"standard"`` (both of the following, one
            after another), ``"word_substitution"`` or ``"character_edits"``, and ``"embedding_fgm"`` and
            ``"embedding_pgd"``. Or a function that is called as these are.
        epsilon: The budget; see `AttackSettings` for the units and defaults.
        norm: ``"linf"`` or ``"l2"`` for images; texts have no choice.
        num_steps: Steps, for attacks that take steps; the attack's own default when None.
        num_restarts: Restarts, for attacks that have them.
        max_queries: How often an attack on texts may ask the model about each text; no limit when None.
        max_seconds: After how many seconds an attack on texts ends; no limit when None.
        options: Further arguments of the attack by its own names, such as ``{"num_queries": 1000}``; not
            those that the other arguments here decide.
        examples: How many rows, drawn by ``seed`` since splits are often sorted by class; all where it has
            fewer.
        batch_size: Rows computed at once. When None, as many as fit: 128 texts or small images, 10 images
            of 224 x 224 pixels, and 32 texts where gradients are taken.
        similarity_fn: For word substitution, cosines of sentences ``(originals, candidates) -> (rows,)``:
            a function, ``"minilm-l6"`` for that encoder, or None to let every sentence pass.
        alarms: Whether signs of masked gradients are looked for, on 64 rows; it costs a few hundred passes.
        seed: Seed of everything that is drawn.

    Returns:
        Figures, settings, alarms and examples.

    Raises:
        ConfigError: If the attack is unknown, does not go with such rows, or lacks a setting; or if an
            argument cannot be used, or stands among the ``options`` though this function sets it.
        DataError: If the split has no rows or other classes than the model.

    Reference:
        Croce and Hein (2020), "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
        Parameter-free Attacks", arXiv:2003.01690; Carlini et al. (2019), arXiv:1902.06705.
    """
    name = attack if isinstance(attack, str) else getattr(attack, "__name__", type(attack).__name__)
    settings = AttackSettings(
        attack=name,
        epsilon=epsilon,
        norm=norm,
        num_steps=num_steps,
        num_restarts=num_restarts,
        max_queries=max_queries,
        max_seconds=max_seconds,
        examples=examples,
        seed=seed,
    )
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}: it must be 1 or more.")
    check_split(split, model.classes)
    features, labels, rows = draw_rows(split, examples, seed=seed)
    given = dict(options or {})
    if "pixels" in model.input:
        from tfapp.evaluation.robustness.on_pixels import measure_pixels

        measured = measure_pixels(
            model,
            features,
            labels,
            attack,
            settings,
            given,
            batch_size=batch_size,
            alarms=alarms,
        )
    elif name in EMBEDDING_ATTACKS:
        from tfapp.evaluation.robustness.on_embeddings import measure_embeddings

        measured = measure_embeddings(
            model, features, labels, settings, given, batch_size=batch_size or 32, alarms=alarms
        )
    else:
        from tfapp.evaluation.robustness.on_words import measure_words

        measured = measure_words(
            model,
            features,
            labels,
            attack,
            settings,
            given,
            batch_size=batch_size or 128,
            similarity_fn=similarity_fn,
        )
    return measured.result(split, labels, settings, rows=rows)
