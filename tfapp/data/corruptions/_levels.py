"""What a severity means: two published tables, and the sizes between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

SEVERITIES = range(1, 6)
SMALLEST_SIDE = 32
_SMALL, _LARGE = 32, 224

Image = npt.NDArray[np.float32]
"""One image, ``(height, width, 3)``, 0..1."""

ImageCorruption = Callable[[Image, int, np.random.Generator], Image]
"""Changes one image at a severity from 1 to 5; what it gives may leave 0..1 and is clipped afterwards."""


def level(
    image: Image, severity: int, *, at_32: Sequence[float], at_224: Sequence[float], length: bool = False
) -> float:
    """Looks a number up for an image's size.

    Args:
        image: The image; its shorter side decides.
        severity: 1 to 5.
        at_32: The numbers of the five severities for 32 pixels, as CIFAR-10-C has them.
        at_224: Those for 224 pixels, as ImageNet-C has them; sizes between lie between.
        length: Whether the number is a length in pixels, which grows with images beyond 224.

    Returns:
        The number.
    """
    side = min(image.shape[:2])
    share = min((side - _SMALL) / (_LARGE - _SMALL), 1.0)
    low, high = at_32[severity - 1], at_224[severity - 1]
    return float((low + (high - low) * share) * (max(side / _LARGE, 1.0) if length else 1.0))
