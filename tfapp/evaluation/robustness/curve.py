"""Robust accuracy over the size of the perturbation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfapp.errors import ConfigError
from tfapp.evaluation.alarms import Alarm, rises_with_epsilon
from tfapp.evaluation.report import table_lines
from tfapp.evaluation.robustness.measuring import evaluate_robustness
from tfapp.evaluation.robustness.result import Robustness
from tfapp.evaluation.robustness.settings import EMBEDDING_ATTACKS, AttackSettings, epsilon_text

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The budgets of a curve, as multiples of the one that is asked about."""


@dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """One attack at several budgets, on the same rows.

    Attributes:
        points: The figures at each budget, which grows.
        alarms: What the curve itself says against the attack.
    """

    points: tuple[Robustness, ...]
    alarms: tuple[Alarm, ...] = ()

    @property
    def settings_text(self) -> str:
        """What all points have in common, in one line."""
        first = self.points[0]
        return first.settings_text.replace(
            f"epsilon {epsilon_text(first.epsilon, first.norm)}", "epsilon as stated"
        )

    def lines(self) -> list[str]:
        """Words the curve for people, one string a line."""
        body = [
            (
                epsilon_text(point.epsilon, point.norm),
                f"{point.robust_accuracy:.4f}",
                f"{point.interval95[0]:.4f} to {point.interval95[1]:.4f}",
            )
            for point in self.points
        ]
        header = ("epsilon", "robust accuracy", "95 % interval")
        return [self.settings_text, *map(str, self.alarms), *table_lines(header, body)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Returns the points and alarms, ready for JSON."""
        return {
            "points": [point.to_dict() for point in self.points],
            "alarms": [alarm.to_dict() for alarm in self.alarms],
        }


def robustness_curve(
    model: Any, split: Any, *, epsilons: Sequence[float] | None = None, attack: str = "", **options: Any
) -> RobustnessCurve:
    """Measures robust accuracy at several budgets, each attacked by itself.

    That no row is carried from one budget to the next costs time and shows what a cheaper curve would hide:
    an attack that finds less with more freedom. All points are of the same rows, so their intervals are not
    independent: a difference between two points is better known than the intervals, looked at apart, suggest.

    Args:
        model: A classifier with its preprocessor.
        split: Rows with labels.
        epsilons: The budgets, two or more different ones; multiples of the default one when None.
        attack: As for `evaluate_robustness`; ``"pgd"`` for images and ``"character_edits"`` for texts by
            default, as an ensemble at every budget takes long.
        **options: Further arguments of `evaluate_robustness`; of them ``alarms`` are off, and ``epsilon``,
            if given, is what multiples are taken of.

    Returns:
        The curve.

    Raises:
        ConfigError: If there are fewer than two budgets, or an argument cannot be used.
        DataError: If the split does not go with the model.
    """
    on_pixels = "pixels" in model.input
    attack = attack or ("pgd" if on_pixels else "character_edits")
    asked = options.pop("epsilon", None)
    if epsilons is None:
        settings = AttackSettings(attack=attack, epsilon=asked, norm=options.get("norm"))
        if on_pixels:
            middle = settings.epsilon_of("pixels")
            most = 1.0 if settings.norm_of("pixels") == "linf" else math.inf
        elif attack in EMBEDDING_ATTACKS:
            from tfapp.attacks import ATTACKS  # TensorFlow loads only where a model runs

            middle, most = settings.epsilon_of("embeddings", ATTACKS[attack]), math.inf
        else:
            middle, most = settings.epsilon_of("words"), 1.0
        epsilons = [min(most, multiple * middle) for multiple in MULTIPLES]
    budgets = sorted(set(epsilons))
    if len(budgets) < 2:
        raise ConfigError(f"epsilons = {list(epsilons)}: a curve needs two or more different ones.")
    points = tuple(
        evaluate_robustness(
            model, split, attack=attack, **{"alarms": False, **options, "epsilon": float(epsilon)}
        )
        for epsilon in budgets
    )
    rising = rises_with_epsilon(
        attack=attack, points=[(point.epsilon, point.robust_accuracy) for point in points]
    )
    return RobustnessCurve(points, () if rising is None else (rising,))
