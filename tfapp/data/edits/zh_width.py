"""Letters and digits as wide as a Chinese character."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._edit import others

_HALF = "".join(map(chr, range(0x21, 0x7F)))
_FULL = "".join(map(chr, range(0xFF01, 0xFF5F)))
_WIDEN = str.maketrans(_HALF, _FULL)
_NARROW = str.maketrans(_FULL, _HALF)


def zh_width(word: str, rng: np.random.Generator) -> list[str]:
    """Writes ASCII letters and digits in full width, or full-width ones in ASCII.

    Args:
        word: A word; Chinese characters have one width only.
        rng: Not used.

    Returns:
        The word in the other widths, where that differs from it.
    """
    return others(word, (word.translate(_WIDEN), word.translate(_NARROW)))
