"""Which pieces of a vocabulary are kept when it is cut to the texts at hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfapp.data.characters import standing_alone
from tfapp.errors import ConfigError

if TYPE_CHECKING:
    from tfapp.data.tokenizers import Tokenizer

_LOG = logging.getLogger("tfapp")
_CONTINUED = "##"
_UNLIMITED = 2**30

Ids = npt.NDArray[np.int32]


def choose_pieces(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    min_count: int = 1,
    vocabulary_size: int | None = None,
) -> Ids:
    """Chooses the pieces to keep: those of the texts, and those that spell what the texts do not hold.

    Where ``vocabulary_size`` leaves room for the latter, the most frequent others fill it. Where it does not,
    pieces are kept by their frequency alone, and characters that are left out become unknown tokens.

    Args:
        tokenizer: The tokenizer.
        texts: The texts to count pieces in.
        min_count: How often a piece must occur to be kept, 1 or more.
        vocabulary_size: Most pieces to keep; None for no limit.

    Returns:
        Ids, ascending, int32.

    Raises:
        ConfigError: When a number is out of range.
    """
    check_counts(tokenizer, min_count=min_count, vocabulary_size=vocabulary_size)
    special = np.unique(np.array(tokenizer.special_ids, np.int32))
    values = tokenizer.encode(texts, max_length=_UNLIMITED).values
    counts = np.bincount(values, minlength=len(tokenizer.vocabulary))
    fallback = np.union1d(special, tokenizer.fallback_ids)
    frequent = np.setdiff1d(np.flatnonzero(counts >= min_count), fallback)
    limit = vocabulary_size or len(counts)
    if len(fallback) <= limit:
        room = limit - len(fallback)
        chosen = np.union1d(fallback, _most_frequent(frequent, counts)[:room])
    else:
        candidates = np.union1d(np.setdiff1d(fallback, special), frequent)
        chosen = np.union1d(special, _most_frequent(candidates, counts)[: limit - len(special)])
        lost = np.setdiff1d(fallback, chosen)
        _LOG.warning(
            "vocabulary_size = %d has no room for the %d pieces that spell every text: %d characters are "
            "left out and become unknown tokens, %d of which occur in the texts",
            limit,
            len(fallback),
            len(lost),
            int((counts[lost] > 0).sum()),
        )
    return chosen.astype(np.int32)


def check_counts(tokenizer: Tokenizer, *, min_count: int, vocabulary_size: int | None) -> None:
    """Refuses numbers by which no vocabulary can be cut.

    Args:
        tokenizer: The tokenizer.
        min_count: As in `choose_pieces`.
        vocabulary_size: As in `choose_pieces`.

    Raises:
        ConfigError: When a number is out of range.
    """
    if min_count < 1:
        raise ConfigError(f"min_count = {min_count}: it must be at least 1.")
    special = len(set(tokenizer.special_ids))
    if vocabulary_size is not None and vocabulary_size <= special:
        raise ConfigError(
            f"vocabulary_size = {vocabulary_size}: it must be more than the {special} special tokens."
        )


def _most_frequent(ids: npt.NDArray[Any], counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The ids, those that occur most first; of equals the lower, which vocabularies put first."""
    return ids[np.argsort(-counts[ids], kind="stable")]


def wordpiece_fallback(pieces: Sequence[str]) -> Ids:
    """Finds the WordPieces that spell every word by its characters.

    They are single characters, at the beginning of a word and, unless they are always words of their own as
    Chinese characters and punctuation are, within one. Where a character has no such piece, all pieces with
    it are kept.

    Args:
        pieces: The vocabulary.

    Returns:
        Ids, ascending, int32; none of special tokens.
    """
    known = set(pieces)
    singles = {place for place, piece in enumerate(pieces) if len(piece.removeprefix(_CONTINUED)) == 1}
    alone = standing_alone(sorted({pieces[place][-1] for place in singles}))
    kept = {
        place
        for place in singles
        if not (pieces[place].startswith(_CONTINUED) and pieces[place][-1] in alone)
    }
    for place, piece in enumerate(pieces):
        if place in singles or (piece.startswith("[") and piece.endswith("]")):
            continue
        inner = piece.startswith(_CONTINUED)
        letters = piece.removeprefix(_CONTINUED)
        spelled = [f"{_CONTINUED}{letters[0]}" if inner else letters[0]]
        spelled += [f"{_CONTINUED}{letter}" for letter in letters[1:]]
        if not known.issuperset(spelled):
            kept.add(place)
    return np.array(sorted(kept), np.int32)
