"""Random edits of texts, as an augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tfapp.data.edits._edit import Edit
from tfapp.data.edits._segments import Chinese, segment
from tfapp.errors import ConfigError, nearest

_PROBES = ("电影院", "wonderful")


def random_edits(
    text: str,
    rng: np.random.Generator,
    share: float,
    edits: Sequence[str | Edit],
    *,
    chinese: Chinese = "auto",
) -> str:
    """Edits a share of a text's words at random.

    Args:
        text: The text.
        rng: Draws the words, the edit of each, and one of its candidates.
        share: Share of the words to edit, from 0 to 1: so many words on average over many texts, and never a
            whole word more or less, as long as enough words have candidates.
        edits: Names of `TEXT_EDITS`, or edits; each word gets one of them, or the next where that one has no
            candidate for it.
        chinese: How runs of Chinese characters are cut; see `segment`.

    Returns:
        The text with other words; everything between the words as it was.

    Raises:
        ConfigError: If the share is out of range, or an edit is unknown or lacks its package.
    """
    return _edit(text, rng, _checked_share(share), resolve_edits(edits), chinese)


def random_edits_batch(
    texts: Sequence[str],
    *,
    seed: int,
    share: float,
    edits: Sequence[str | Edit],
    chinese: Chinese = "auto",
) -> list[str]:
    """Edits a share of the words of many texts at random.

    Each text's edits follow from the seed and the text alone, not from the other texts or its place among
    them. Give another seed every epoch.

    Args:
        texts: The texts.
        seed: Any whole number.
        share: As in `random_edits`.
        edits: As in `random_edits`.
        chinese: As in `random_edits`.

    Returns:
        The edited texts, in their order.

    Raises:
        ConfigError: As `random_edits`.
    """
    share, chosen = _checked_share(share), resolve_edits(edits)
    key = str(seed).encode()[:64]
    edited = []
    for text in texts:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).digest()
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        edited.append(_edit(text, rng, share, chosen, chinese))
    return edited


def resolve_edits(edits: Sequence[str | Edit]) -> list[Edit]:
    """Returns the edits that are meant by names, and other edits as they are.

    Raises:
        ConfigError: If there is none, a name is unknown, or one is neither a name nor a function.
    """
    from tfapp.data.edits import TEXT_EDITS  # the package lists the edits after it has imported this module

    if isinstance(edits, str) or not edits:
        raise ConfigError(f"edits = {edits!r}: give a list of one or more of {', '.join(TEXT_EDITS)}.")
    resolved = []
    for edit in edits:
        if isinstance(edit, str) and edit not in TEXT_EDITS:
            raise ConfigError(f"unknown edit {edit!r}; {nearest(edit, TEXT_EDITS)}")
        if not isinstance(edit, str) and not callable(edit):
            raise ConfigError(
                f"edit {edit!r}: give one of {', '.join(TEXT_EDITS)}, or a function of a word and a "
                "generator."
            )
        resolved.append(TEXT_EDITS[edit] if isinstance(edit, str) else edit)
    return resolved


def try_edits(edits: Sequence[str | Edit]) -> None:
    """Tries each edit on a Chinese and a Latin word: what it lacks is seen before it is needed.

    Args:
        edits: As in `random_edits`.

    Raises:
        ConfigError: If there is none, a name is unknown, or one lacks its package.
        AssetError: If the table of one cannot be fetched.
    """
    for edit in resolve_edits(edits):
        for word in _PROBES:
            edit(word, np.random.default_rng(0))


def _checked_share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}: it must be from 0 to 1.")
    return share


def _edit(text: str, rng: np.random.Generator, share: float, edits: Sequence[Edit], chinese: Chinese) -> str:
    segments = segment(text, chinese=chinese)
    count = int(share * len(segments.words) + rng.random())
    if not count:
        return text
    changes: dict[int, str] = {}
    for position in rng.permutation(len(segments.words)).tolist():
        word = segments.words[position]
        first = int(rng.integers(len(edits)))
        for edit in (*edits[first:], *edits[:first]):
            if candidates := edit(word, rng):
                changes[position] = candidates[int(rng.integers(len(candidates)))]
                break
        if len(changes) == count:
            break
    return segments.join(changes)
