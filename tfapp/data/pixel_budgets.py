"""The largest budget of an attack on pixels; without slow imports, for the schema of workflow files."""

from __future__ import annotations

from numbers import Real
from typing import Any

from tfapp.errors import ConfigError


def beyond_the_range(name: str, value: Any, norm: str | None) -> str | None:
    """Says what is wrong with a budget in the maximum norm that is larger than the range of pixels.

    Args:
        name: What the setting is called.
        value: A fraction of the range; only numbers are judged.
        norm: The norm; None stands for ``"linf"``. In ``"l2"`` the budget is that of a whole image, and may
            be above 1.

    Returns:
        The problem with its cure; None where there is none.
    """
    if norm not in (None, "linf") or not isinstance(value, Real) or value <= 1.0:
        return None
    return (
        f"{name} = {value:g}: epsilon is a fraction of the pixel range: 8/255 = 0.0314 for 8 grey levels; "
        "in the norm 'linf' it is at most 1"
    )


def check_pixel_budget(name: str, value: Any, norm: str | None) -> None:
    """Refuses a budget in the maximum norm that is larger than the range of pixels.

    Args:
        name: As for `beyond_the_range`.
        value: As for `beyond_the_range`.
        norm: As for `beyond_the_range`.

    Raises:
        ConfigError: When it is.
    """
    problem = beyond_the_range(name, value, norm)
    if problem is not None:
        raise ConfigError(f"{problem}.")
