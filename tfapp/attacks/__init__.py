"""Attacks: one file a method, all of them in `ATTACKS`.

An attack takes a ``model_fn`` from inputs to logits, in inference mode, and returns inputs within a budget
that the model answers worse. It changes no variable, works eagerly and inside a `tf.function`, and draws
random numbers from its seed alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import tensorflow as tf

from tfapp.attacks._checks import NORMS, ModelFn, Seed
from tfapp.attacks._compiled import CompiledModel
from tfapp.attacks._examples import FEWEST_CLASSES
from tfapp.attacks._losses import LOSSES, LossFn
from tfapp.attacks.apgd import apgd
from tfapp.attacks.apgd_t import apgd_t
from tfapp.attacks.embedding_fgm import embedding_fgm
from tfapp.attacks.embedding_pgd import embedding_pgd
from tfapp.attacks.fab import fab
from tfapp.attacks.fgsm import fgsm
from tfapp.attacks.pgd import pgd
from tfapp.attacks.square import square
from tfapp.attacks.standard import standard, standard_attacks
from tfapp.errors import ConfigError, nearest

Attack: TypeAlias = Callable[..., tf.Tensor]

ATTACKS: dict[str, Attack] = {
    "apgd": apgd,
    "apgd_t": apgd_t,
    "embedding_fgm": embedding_fgm,
    "embedding_pgd": embedding_pgd,
    "fab": fab,
    "fgsm": fgsm,
    "pgd": pgd,
    "square": square,
    "standard": standard,
}


def make_attack(attack: str | Attack, **settings: Any) -> Attack:
    """Resolves an attack's name and binds its settings.

    Args:
        attack: A key of `ATTACKS`, or an attack.
        **settings: Keyword arguments of the attack.

    Returns:
        The attack, to be called with a model, inputs, labels and any further settings.

    Raises:
        ConfigError: When the name is unknown, or the attack has no such setting.
    """
    if isinstance(attack, str):
        if attack not in ATTACKS:
            raise ConfigError(f"unknown attack {attack!r}; {nearest(attack, ATTACKS)}")
        known = _settings(ATTACKS[attack])
        for name in settings:
            if name not in known:
                raise ConfigError(f"attack {attack!r} has no setting {name!r}; {nearest(name, known)}")
        attack = ATTACKS[attack]
    return partial(attack, **settings) if settings else attack


def loss_in_use(attack: Attack, settings: Mapping[str, Any], num_classes: int) -> str | None:
    """Tells which loss an attack raises that falls back from DLR where a model has too few classes.

    Args:
        attack: The attack, or a partial of it.
        settings: What it is called with.
        num_classes: How many classes the model knows.

    Returns:
        ``"dlr"``, ``"dlr_targeted"`` or another name of a loss; None for attacks that do not fall back.
    """
    function = getattr(attack, "func", attack)
    if function not in (apgd, apgd_t):
        return None
    named = {**getattr(attack, "keywords", {}), **settings}
    loss = "dlr_targeted" if function is apgd_t else str(named.get("loss", "cross_entropy"))
    fewest = FEWEST_CLASSES.get(loss, 0)
    return loss if num_classes >= fewest else "cross_entropy"


def _settings(attack: Attack) -> list[str]:
    parameters = inspect.signature(attack).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


__all__ = [
    "ATTACKS",
    "LOSSES",
    "NORMS",
    "Attack",
    "CompiledModel",
    "LossFn",
    "ModelFn",
    "Seed",
    "loss_in_use",
    "make_attack",
    "standard_attacks",
]
