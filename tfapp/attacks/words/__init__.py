"""Attacks on strings, black box: one file an attack, all of them in `WORD_ATTACKS`."""

from collections.abc import Callable

from tfapp.attacks.words._result import WordAttackResult
from tfapp.attacks.words._victim import PredictFn, Similarity
from tfapp.attacks.words.character_edits import character_edits, default_edits
from tfapp.attacks.words.word_substitution import Candidates, word_substitution

WORD_ATTACKS: dict[str, Callable[..., WordAttackResult]] = {
    "character_edits": character_edits,
    "word_substitution": word_substitution,
}

__all__ = [
    "WORD_ATTACKS",
    "Candidates",
    "PredictFn",
    "Similarity",
    "WordAttackResult",
    "character_edits",
    "default_edits",
    "word_substitution",
]
