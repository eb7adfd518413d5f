"""A word of the same meaning."""

from __future__ import annotations

import numpy as np

from tfapp.data.edits._edit import Edit
from tfapp.data.lexicon import Half, load_substitutions


def synonym(word: str, rng: np.random.Generator) -> list[str]:
    """Replaces an English word by WordNet's synonyms, inflected like it.

    Its part of speech is the most usual one of the word by itself. The table is the one that
    `word_substitution` attacks with by default; to train on one half of it and attack with the other, use
    `make_synonym_edit`.

    Args:
        word: A word; stop words and words that WordNet lacks have no candidate.
        rng: Not used: all synonyms are returned.

    Returns:
        The synonyms.

    Raises:
        AssetError: If WordNet is neither installed nor can be fetched.
    """
    return list(load_substitutions()([word])[0])


def make_synonym_edit(half: Half) -> Edit:
    """Makes the edit that uses one half of the substitutions.

    Args:
        half: ``"first"`` or ``"second"``; see `Substitutions`.

    Returns:
        An edit like `synonym`.
    """

    def edit(word: str, rng: np.random.Generator) -> list[str]:
        return list(load_substitutions(half=half)([word])[0])

    return edit
