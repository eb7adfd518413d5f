"""What decides the vocabulary of a preset that is built here, and the recipes of the packaged ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What decides the vocabulary of a built preset; without anything it is the whole one.

    Attributes:
        languages: Codes of the languages whose pieces are kept, in the order of the alphabet.
        corpus_sha256: Checksum of the file whose pieces are kept, too.
        min_count: How often a piece occurs there at least.
    """

    languages: tuple[str, ...] = ()
    corpus_sha256: str | None = None
    min_count: int = 1

    def as_json(self) -> dict[str, Any]:
        """The recipe as a record holds it."""
        return {**asdict(self), "languages": list(self.languages)}


BASE = "e5-small-multilingual"
"""The preset with the whole vocabulary."""
PACKAGED = {BASE: Recipe(), "e5-small-zh": Recipe(languages=("en", "zh"))}
"""The presets that are built on their first use, with their recipes."""
