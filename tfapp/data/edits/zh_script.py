"""Simplified characters in traditional writing, and the other way round."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tfapp.data.edits._chinese import is_han, zh_package
from tfapp.data.edits._edit import others


def zh_script(word: str, rng: np.random.Generator) -> list[str]:
    """Writes a Chinese word in the other script.

    Args:
        word: A word; one that is not of Chinese characters has no candidate.
        rng: Not used.

    Returns:
        The word in traditional and in simplified characters, where that differs from it.

    Raises:
        ConfigError: If OpenCC is not installed.
    """
    if not is_han(word):
        return []
    return others(word, (_converter(name).convert(word) for name in ("s2t", "t2s")))


@cache
def _converter(name: str) -> Any:
    return zh_package("opencc", "zh_script").OpenCC(name)
