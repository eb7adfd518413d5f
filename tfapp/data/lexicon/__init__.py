"""English words: WordNet's meanings, parts of speech, inflection, and the substitutions made of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tfapp.assets import ASSETS, fetch
from tfapp.data.lexicon.morphology import Morphology
from tfapp.data.lexicon.stop_words import STOP_WORDS
from tfapp.data.lexicon.substitutions import Half, Substitutions
from tfapp.data.lexicon.tagger import Tagger
from tfapp.data.lexicon.wordnet import WordNet

__all__ = ["STOP_WORDS", "Half", "Morphology", "Substitutions", "Tagger", "WordNet", "load_substitutions"]


@cache
def load_substitutions(
    *, half: Half | None = None, limit: int = 50, wordnet: Path | None = None
) -> Substitutions:
    """Loads the substitutions that WordNet gives, fetching the packaged asset on first use.

    Args:
        half: See `Substitutions`.
        limit: See `Substitutions`.
        wordnet: Folder of another WordNet, such as ``/usr/share/wordnet`` of Debian's ``wordnet-base``; the
            packaged WordNet 3.0 when None. The tagger's words and the verbs' forms are always the packaged
            ones.

    Returns:
        The substitutions; the same object for the same arguments.

    Raises:
        AssetError: If the asset cannot be fetched.
        DataError: If the folder is not a WordNet.
    """
    return Substitutions(*_load_words(wordnet), half=half, limit=limit)


@cache
def _load_words(wordnet: Path | None) -> tuple[WordNet, Tagger, Morphology]:
    folder = fetch(ASSETS["wordnet"])
    dictionary = WordNet(wordnet or folder / "wordnet" / "dict")
    tagger = Tagger(folder, dictionary)
    return dictionary, tagger, Morphology(folder, dictionary, tagger)
