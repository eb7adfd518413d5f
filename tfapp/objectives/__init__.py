"""What a train step minimises: one file an objective, all of them in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Callable

from tfapp.errors import ConfigError, nearest
from tfapp.objectives._step import Objective, StepResult, TrainableModel
from tfapp.objectives.joint import Joint
from tfapp.objectives.standard import Standard

OBJECTIVES: dict[str, Callable[[], Objective]] = {"standard": Standard, "joint": Joint}


def make_objective(objective: str | Objective) -> Objective:
    """Resolves an objective's name.

    Args:
        objective: A key of `OBJECTIVES`, or an objective, which is returned as it is.

    Returns:
        The objective.

    Raises:
        ConfigError: When the name is unknown.
    """
    if not isinstance(objective, str):
        return objective
    if objective not in OBJECTIVES:
        raise ConfigError(f"unknown objective {objective!r}; {nearest(objective, OBJECTIVES)}")
    return OBJECTIVES[objective]()


__all__ = ["OBJECTIVES", "Objective", "StepResult", "TrainableModel", "make_objective"]
