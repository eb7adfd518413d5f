"""A letter of another script that looks the same."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._edit import others

# Cyrillic, Greek and Armenian letters that Unicode lists as confusable with Latin ones.
_LATIN = "acdehijlopqsuvwxyABCEHIJKMNOPSTXYZ"
_ALIKE = (
    "\u0430\u0441\u0501\u0435\u04bb\u0456\u0458\u04cf\u043e\u0440\u051b\u0455\u057d\u03bd\u051d\u0445\u0443"
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u039d\u041e\u0420\u0405\u0422\u0425\u03a5\u0396"
)
HOMOGLYPHS = dict(zip(_LATIN, _ALIKE, strict=True))


def homoglyph(word: str, rng: np.random.Generator) -> list[str]:
    """Replaces one Latin letter by one of another script that looks the same.

    Args:
        word: A word of any length.
        rng: Not used: all replacements are returned.

    Returns:
        One word for each letter that has a double.
    """
    places = (at for at, letter in enumerate(word) if letter in HOMOGLYPHS)
    return others(word, (word[:at] + HOMOGLYPHS[word[at]] + word[at + 1 :] for at in places))
