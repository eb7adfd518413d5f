"""What a train step minimises: one file an objective, all of them in `OBJECTIVES`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tfapp.data.digests import describe_callable
from tfapp.errors import ConfigError, nearest
from tfapp.objectives._step import Objective, Perturbable, StepResult, TrainableModel
from tfapp.objectives.adversarial import Adversarial
from tfapp.objectives.distilled import Distilled
from tfapp.objectives.fgm import Fgm
from tfapp.objectives.free import Free
from tfapp.objectives.freelb import FreeLb
from tfapp.objectives.joint import Joint
from tfapp.objectives.mart import Mart
from tfapp.objectives.smart import Smart
from tfapp.objectives.standard import Standard
from tfapp.objectives.trades import Trades
from tfapp.objectives.vat import Vat
from tfapp.objectives.word_augmented import WordAugmented

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "standard": Standard,
    "joint": Joint,
    "distilled": Distilled,
    "adversarial": Adversarial,
    "free": Free,
    "trades": Trades,
    "mart": Mart,
    "fgm": Fgm,
    "freelb": FreeLb,
    "smart": Smart,
    "vat": Vat,
    "word_augmented": WordAugmented,
}


def make_objective(objective: str | Objective, **settings: Any) -> Objective:
    """Resolves an objective's name.

    Args:
        objective: A key of `OBJECTIVES`, or an objective, which is returned as it is.
        settings: Arguments of the named objective.

    Returns:
        The objective.

    Raises:
        ConfigError: When the name or a setting is unknown, or a setting is out of range.
    """
    if not isinstance(objective, str):
        if settings:
            raise ConfigError(f"{sorted(settings)} go with an objective's name, not with an objective.")
        return objective
    if objective not in OBJECTIVES:
        raise ConfigError(f"unknown objective {objective!r}; {nearest(objective, OBJECTIVES)}")
    make = OBJECTIVES[objective]
    known = list(inspect.signature(make).parameters)
    for name in settings:
        if name not in known:
            choices = nearest(name, known) if known else "it has no settings"
            raise ConfigError(f"the objective {objective!r} has no setting {name!r}; {choices}")
    return make(**settings)


def describe_objective(objective: Objective) -> dict[str, Any]:
    """Describes an objective by plain values, for keys and records.

    Args:
        objective: The objective.

    Returns:
        Its name, and its settings by name.

    Raises:
        ConfigError: When a function among its settings holds what has no plain description.
    """
    return {"name": objective.name, **_plain(vars(objective))}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, bool | int | float | str | None):
            described[name] = value
        elif hasattr(value, "described"):
            described |= value.described()
        elif hasattr(value, "__dict__") and not callable(value):
            described |= _plain(vars(value))
        else:
            described[name] = describe_callable(value)
    return described


__all__ = [
    "OBJECTIVES",
    "Objective",
    "Perturbable",
    "StepResult",
    "TrainableModel",
    "describe_objective",
    "make_objective",
]
