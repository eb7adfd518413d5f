"""The settings of corruptions as an augmentation, which texts and images share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Real
from typing import Any

from tfapp.data.corruptions import check_corruption
from tfapp.errors import ConfigError


def checked_corruptions(names: Any, severity: Any, known: Collection[str]) -> tuple[str, ...]:
    """Checks what is to be drawn from.

    Args:
        names: Names of corruptions; none switches them off.
        severity: Highest severity.
        known: The corruptions that there are.

    Returns:
        The names.

    Raises:
        ConfigError: When a name is unknown, the severity out of range, or the names are no list.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"augmentation corruptions = {names!r}: a list of names is needed.")
    for name in names or list(known)[:1]:
        check_corruption(name, severity, known)
    return tuple(names)


def checked_share(name: str, value: Any) -> float:
    """Checks a share from 0 to 1.

    Raises:
        ConfigError: When it is no such number.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0.0 <= float(value) <= 1.0:
        raise ConfigError(f"augmentation {name} = {value!r}: a number is needed, at least 0 and at most 1.")
    return float(value)
