"""What an attack is asked for, and the numbers that fill what was left open."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tfapp.data.pixel_budgets import check_pixel_budget
from tfapp.errors import ConfigError, nearest

PIXEL_EPSILON = {"linf": 8 / 255, "l2": 0.5}
WORD_ATTACKS = ("word_substitution", "character_edits")
EMBEDDING_ATTACKS = ("embedding_fgm", "embedding_pgd")
_WORD_SHARE = 0.2
# Given by the evaluation to every attack and stated in places of their own, or of no effect on the figures.
_STATED_ELSEWHERE = {"epsilon", "norm", "bounds", "seed", "max_changed", "mask", "batch_size"}
# What the evaluation gives to every attack, by the argument of `evaluate_robustness` that decides it.
_DECIDED_BY: dict[str, dict[str, str | None]] = {
    "pixels": {
        "epsilon": "epsilon",
        "norm": "norm",
        "seed": "seed",
        "batch_size": "batch_size",
        "bounds": None,
    },
    "words": {"max_changed": "epsilon", "seed": "seed"},
    "embeddings": {"epsilon": "epsilon", "seed": "seed", "mask": None},
}
_LARGEST_SEED = 2**31


@dataclass(frozen=True)
class AttackSettings:
    """An attack, by plain values; None leaves a value to the kind of rows and to the attack.

    Args:
        attack: ``"standard"``: for pixels the ensemble of AutoAttack, for texts word substitution and then
            character edits on what survives it. Or one attack by name.
        epsilon: For pixels the largest perturbation as a fraction of their range: 8/255 in ``linf`` and 0.5
            in ``l2`` by default. For words the largest share of them that is changed, 0.2 by default. For
            embeddings a fraction of the example's own norm.
        norm: ``"linf"`` or ``"l2"`` for pixels, ``"linf"`` by default; texts have no choice.
        num_steps: Steps of an attack that takes steps.
        num_restarts: Restarts of an attack that has them.
        max_queries: How often an attack on texts may ask about each; as often as it wants when None.
        max_seconds: After how many seconds an attack on texts ends; never when None.
        examples: How many rows are attacked, drawn by the seed where the split has more.
        seed: Seed of everything that is drawn.

    Raises:
        ConfigError: If a value is out of range.
    """

    attack: str = "standard"
    epsilon: float | None = None
    norm: str | None = None
    num_steps: int | None = None
    num_restarts: int | None = None
    max_queries: int | None = None
    max_seconds: float | None = None
    examples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0.0 < self.epsilon < math.inf:
            raise ConfigError(
                f"epsilon = {self.epsilon}: it must be a positive number, such as 8/255 = 0.0314."
            )
        for name in ("num_steps", "num_restarts", "max_queries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: it must be 1 or more.")
        if self.max_seconds is not None and not 0.0 < self.max_seconds < math.inf:
            raise ConfigError(f"max_seconds = {self.max_seconds}: it must be a positive number.")
        if self.examples < 1:
            raise ConfigError(f"examples = {self.examples}: it must be 1 or more.")
        if not 0 <= self.seed < _LARGEST_SEED:
            raise ConfigError(f"seed = {self.seed}: it must be at least 0 and less than 2^31.")

    def norm_of(self, domain: str) -> str:
        """Tells the norm.

        Args:
            domain: What is perturbed: ``"pixels"``, ``"words"`` or ``"embeddings"``.

        Returns:
            ``"linf"`` or ``"l2"``; ``"words"`` for a share of words; ``"relative l2"`` for embeddings.

        Raises:
            ConfigError: If the norm that was asked for is another.
        """
        own = {"words": "words", "embeddings": "relative l2"}.get(domain)
        if own is not None:
            if self.norm not in (None, own):
                raise ConfigError(
                    f"norm = {self.norm!r}: perturbations of {domain} have the norm {own!r} only."
                )
            return own
        norm = self.norm or "linf"
        if norm not in PIXEL_EPSILON:
            raise ConfigError(f"norm = {norm!r} is unknown; {nearest(norm, PIXEL_EPSILON)}")
        return norm

    def epsilon_of(self, domain: str, attack: Callable[..., Any] | None = None) -> float:
        """Tells the budget.

        Args:
            domain: As in `norm_of`.
            attack: The attack whose default counts for embeddings.

        Returns:
            A positive number.

        Raises:
            ConfigError: If a share of words is above 1, or a change of pixels in ``linf``.
        """
        if domain == "words":
            share = _WORD_SHARE if self.epsilon is None else self.epsilon
            if share > 1.0:
                raise ConfigError(f"epsilon = {share}: for words it is the share that may change, at most 1.")
            return share
        if self.epsilon is not None:
            if domain == "pixels":
                check_pixel_budget("epsilon", self.epsilon, self.norm_of(domain))
            return float(self.epsilon)
        if domain == "embeddings" and attack is not None:
            return float(inspect.signature(attack).parameters["epsilon"].default)
        return PIXEL_EPSILON[self.norm_of("pixels")]

    def own_arguments(self, name: str, attack: Callable[..., Any]) -> dict[str, float]:
        """Gives steps, restarts and limits that were asked for, after a look whether the attack takes them.

        Args:
            name: The attack's name, for messages.
            attack: The attack.

        Returns:
            Arguments of the attack.

        Raises:
            ConfigError: If it has no such argument.
        """
        asked: dict[str, float | None] = {
            "num_steps": self.num_steps,
            "num_restarts": self.num_restarts,
            "max_queries": self.max_queries,
            "max_seconds": self.max_seconds,
        }
        given = {argument: value for argument, value in asked.items() if value is not None}
        taken = set(inspect.signature(attack).parameters)
        for argument, value in given.items():
            if argument not in taken:
                known = ", ".join(sorted(n for n in taken if n.startswith(("num_", "max_")))) or "none"
                raise ConfigError(
                    f"{argument} = {value}: the attack {name!r} has no such setting (it has: {known})."
                )
        return given


def check_options(options: Mapping[str, Any], domain: str, *, similarity: bool = False) -> None:
    """Refuses further arguments of an attack that the evaluation itself sets.

    Args:
        options: Arguments of the attack by their names.
        domain: What is perturbed: ``"pixels"``, ``"words"`` or ``"embeddings"``.
        similarity: Whether the evaluation gives the attack a measure of similarity.

    Raises:
        ConfigError: Naming the argument of `evaluate_robustness` to be used instead.
    """
    decided = {**_DECIDED_BY[domain], **({"similarity_fn": "similarity_fn"} if similarity else {})}
    for name in options:
        if name in decided:
            cure = f"give {decided[name]} instead" if decided[name] else "leave it out"
            raise ConfigError(
                f"options: {name!r} is set by evaluate_robustness itself for attacks on {domain}; {cure}."
            )


def described(attack: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lists every plain setting with which an attack runs, defaults included.

    Args:
        attack: The attack.
        given: Arguments that it is called with.

    Returns:
        Numbers, strings and booleans by name, without those that are stated elsewhere: epsilon, norm, bounds
        and seed.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(attack).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    named = {**defaults, **given}
    return {
        name: value
        for name, value in named.items()
        if name not in _STATED_ELSEWHERE and isinstance(value, bool | int | float | str)
    } | {
        name: " ".join(value)
        for name, value in named.items()
        if isinstance(value, tuple | list) and value and all(isinstance(part, str) for part in value)
    }


def epsilon_text(epsilon: float, norm: str) -> str:
    """Words a budget: in ``linf`` as grey levels of 255 where it is a whole number or a half of them.

    Args:
        epsilon: A fraction.
        norm: In what it is measured.

    Returns:
        Such as ``"8/255"`` or ``"0.2"``.
    """
    levels = round(2 * 255 * epsilon) / 2
    if norm == "linf" and levels and math.isclose(levels / 255, epsilon, rel_tol=1e-6):
        return f"{levels:g}/255"
    return f"{epsilon:.4g}"
