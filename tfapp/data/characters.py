"""What TF.Text's tokenizer makes of every character, for tokenizers elsewhere that must do the same."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_text as tf_text

# Surrogates are no characters: no UTF-8 text holds one.
_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]
_HANGUL = range(0xAC00, 0xD7A4)
_UNKNOWN = 0


@functools.cache
def character_table(*, lowercase: bool) -> dict[str, Any]:
    """Asks the kernels of TF.Text about every character of Unicode.

    Hangul syllables that are split into their letters, as canonical decomposition does, are left out: every
    platform knows how.

    Args:
        lowercase: Whether text is lower-cased and freed of accents.

    Returns:
        ``hangul``: whether those syllables are split. ``removed``: characters that vanish. ``replaced``:
        others that become something else, as pairs of a first code point and what becomes of it and of
        those after it. ``spaces``: what ends a word and is no token. ``separators``: what is a token of its
        own. All but ``replaced`` are ranges of code points, as a list of their firsts and lengths in turn;
        spaces and separators are told after replacing.
    """
    texts = [chr(point) for point in _POINTS]
    normalizer = tf_text.FastBertNormalizer(lower_case_nfd_strip_accents=lowercase)
    found = (text.decode("utf-8") for text in normalizer.normalize(tf.constant(texts)).numpy())
    changed = {
        point: text for point, text, before in zip(_POINTS, found, texts, strict=True) if text != before
    }
    split = {point: unicodedata.normalize("NFD", chr(point)) for point in _HANGUL}
    hangul = all(changed.get(point) == text for point, text in split.items())
    if hangul:
        changed = {point: text for point, text in changed.items() if point not in split}
    spaces, separators = _roles(texts)
    return {
        "hangul": hangul,
        "removed": _ranges([point for point, text in changed.items() if not text]),
        "replaced": _runs({point: text for point, text in changed.items() if text}),
        "spaces": _ranges(spaces),
        "separators": _ranges(separators),
    }


def standing_alone(characters: Sequence[str]) -> set[str]:
    """Finds the characters that are always words of their own, such as punctuation and Chinese ones.

    Args:
        characters: Some characters.

    Returns:
        Those of them.
    """
    return {chr(point) for point in _roles(list(characters))[1]} if characters else set()


def _roles(texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Finds the characters that end a word, and of those the ones that are tokens, by putting each in one."""
    kernel = tf_text.FastWordpieceTokenizer(
        ["[UNK]", "a", "##a"], unknown_token="[UNK]", token_out_type=tf.int32, no_pretokenization=False
    )
    rows = kernel.tokenize(tf.constant([f"a{text}a" for text in texts]))
    lengths, values = rows.row_lengths().numpy(), rows.values.numpy()
    second = values[np.minimum(rows.row_starts().numpy() + 1, len(values) - 1)]
    points = np.array([ord(text) for text in texts])
    # "a a" are two tokens; "a,a" are three, whose second is unknown here; "aba" is one unknown word.
    return points[lengths == 2], points[(lengths == 3) & (second == _UNKNOWN)]


def _ranges(points: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
    values = np.array(points, np.int64)
    if not len(values):
        return []
    firsts = np.flatnonzero(np.diff(values, prepend=-2) != 1)
    lengths = np.diff(np.append(firsts, len(values)))
    return [int(value) for pair in zip(values[firsts], lengths, strict=True) for value in pair]


def _runs(replaced: dict[int, str]) -> list[list[Any]]:
    runs: list[list[Any]] = []
    end = -1
    for point, text in sorted(replaced.items()):
        if point != end:
            runs.append([point])
        runs[-1].append(text)
        end = point + 1
    return runs
