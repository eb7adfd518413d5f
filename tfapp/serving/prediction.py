"""What is known of a text or an image after it was classified."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The answer for one text or image.

    Attributes:
        label: Name of the most probable class.
        probabilities: The probability of each class by name, adding up to 1.
    """

    label: str
    probabilities: dict[str, float]
