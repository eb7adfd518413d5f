"""Which words may take the place of each word of a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

from tfapp.data.lexicon.morphology import Morphology, part_of
from tfapp.data.lexicon.stop_words import STOP_WORDS
from tfapp.data.lexicon.tagger import Tagger
from tfapp.data.lexicon.wordnet import WordNet
from tfapp.errors import ConfigError

Half = Literal["first", "second"]


class Substitutions:
    """Synonyms of the words of a text: of the same part of speech, in the same form, never an antonym.

    A word's part of speech is its tag in the text. Its candidates are the words that share a synset of that
    part of speech with its base form, the most usual meaning first, inflected like the word, in its case.
    Stop words, proper nouns, words below three letters and words whose form cannot be given back to a
    candidate have none. Phrases and proper names are no candidates.

    Args:
        wordnet: The dictionary.
        tagger: Finds parts of speech.
        morphology: Finds base forms, and inflects.
        half: Keep only ``"first"`` or ``"second"`` of two halves of the pairs of base forms, cut by a hash
            of the pair, so that training may use one half and the attack the other; None keeps all.
        limit: Most candidates of a word, 1 or more.

    Raises:
        ConfigError: If ``half`` or ``limit`` cannot be used.
    """

    def __init__(
        self,
        wordnet: WordNet,
        tagger: Tagger,
        morphology: Morphology,
        *,
        half: Half | None = None,
        limit: int = 50,
    ) -> None:
        if half is not None and half not in get_args(Half):
            raise ConfigError(f"half = {half!r}; choices: 'first', 'second' or None.")
        if limit < 1:
            raise ConfigError(f"limit = {limit}: it must be 1 or more.")
        self.half = half
        self.limit = limit
        self.wordnet = wordnet
        self.tagger = tagger
        self.morphology = morphology
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def __call__(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Finds the candidates of each word of a text.

        Args:
            words: The words of one text in their order.

        Returns:
            The candidates of each, best first, in the word's case; an empty tuple where there are none.
        """
        tags = self.tagger.tag(words)
        return [
            tuple(_in_case_of(word, other) for other in self._candidates(word.lower(), tag))
            for word, tag in zip(words, tags, strict=True)
        ]

    def _candidates(self, word: str, tag: str) -> tuple[str, ...]:
        """The candidates of a word in lower case."""
        key = word, tag
        if key not in self._known:
            self._known[key] = () if word in STOP_WORDS or len(word) < 3 else self._look_up(word, tag)
        return self._known[key]

    def _look_up(self, word: str, tag: str) -> tuple[str, ...]:
        part, base = part_of(tag), self.morphology.base(word, tag)
        # What cannot be inflected back would not be inflected like its synonyms either.
        if part is None or base is None or self.morphology.inflect(base, tag) != word:
            return ()
        antonyms = self.wordnet.antonyms(base, part)
        found: dict[str, None] = {}
        for synset in self.wordnet.synsets(base, part):
            for other in synset.words:
                plain = other.isalpha() and other.islower() and other not in STOP_WORDS
                if other == base or not plain or other in antonyms or not self._in_half(base, other):
                    continue
                form = self.morphology.inflect(other, tag)
                if form is not None and form != word:
                    found[form] = None
        return tuple(found)[: self.limit]

    def _in_half(self, one: str, other: str) -> bool:
        if self.half is None:
            return True
        pair = "\n".join(sorted((one, other))).encode()
        odd = hashlib.blake2b(pair, digest_size=1).digest()[0] % 2
        return bool(odd) == (self.half == "second")


def _in_case_of(word: str, other: str) -> str:
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other.capitalize() if word[:1].isupper() else other
