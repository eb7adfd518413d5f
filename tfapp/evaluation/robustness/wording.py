"""How the settings of an attack are worded, the same wherever its figures stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfapp.evaluation.robustness.settings import epsilon_text


def settings_text(figures: Mapping[str, Any]) -> str:
    """Words everything that a robust accuracy depends on.

    Args:
        figures: What `Robustness.to_dict` returns, or the like of a manifest.

    Returns:
        One line: attack, norm, epsilon, steps, restarts, examples and seed.
    """

    def number(name: str) -> str:
        if figures[name] is not None:
            return f"{figures[name]:,}"
        members = figures.get("per_attack", ())
        return "of each attack" if any(name in each["settings"] for each in members) else "none"

    epsilon = epsilon_text(figures["epsilon"], figures["norm"])
    return (
        f"attack {figures['attack']}, norm {figures['norm']}, epsilon {epsilon}, "
        f"steps {number('num_steps')}, restarts {number('num_restarts')}, "
        f"{figures['examples']:,} examples of {figures['split']}, seed {figures['seed']}"
    )


def plain_settings(settings: Mapping[str, Any]) -> str:
    """Words the settings of one attack.

    Args:
        settings: Plain values by name.

    Returns:
        Such as ``"num_steps 10, loss cross_entropy"``.
    """
    return ", ".join(f"{name} {value}" for name, value in settings.items())
