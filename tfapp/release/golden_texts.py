"""Texts of golden vectors: words of the model's vocabulary, drawn at random."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from tfapp.data.encoded import MAX_WINDOWS, window_stride
from tfapp.release.probe import Probe

_SPECIAL_TOKENS = 2  # at the beginning and the end of a text


def _accented(words: Sequence[str], form: Literal["NFC", "NFD"]) -> str:
    marked = "".join(f"{letter}\u0301" if letter in "aeiou" else letter for letter in " ".join(words))
    return unicodedata.normalize(form, marked)


# What tokenizers differ on, each put on drawn words: letters, marks, spaces and scripts.
_DRESSES: tuple[Callable[[Sequence[str]], str], ...] = (
    lambda words: " ".join(words).title(),
    lambda words: " ".join(words).upper(),
    lambda words: f"({', '.join(words)})! it's $3.50, 20% off: #1 of a@b.c?",
    lambda words: _accented(words, "NFC"),
    lambda words: _accented(words, "NFD").upper(),
    lambda words: "\u201c" + " \u2014 ".join(words) + "\u2026\u201d",
    lambda words: "\t\u00a0\n\u3000".join(words),
    lambda words: "\u597d".join(words) + "\u7535\u5f71",
    lambda words: f"{words[0]} {(words[-1] * 101)[:101]}",
    lambda words: " \U0001f642 \u2122 \u00bd ".join(words),
    lambda words: (
        " ".join(words) + " Stra\u00dfe \ufb01n \u039f\u0394\u039f\u03a3 \u0130stanbul \u041f\u0440\u0418"
    ),
    lambda words: "\u200b".join(words) + "\u00ad \u0007 " + words[0],
)
_DRESSED = 4
"""Of so many texts one is dressed, and it has at most so many words."""


def make_golden_texts(
    vocabulary: Sequence[str], *, max_length: int, count: int = 50, seed: int = 0
) -> list[str]:
    """Draws texts from a vocabulary: the empty one, one that is too long, and others of all lengths.

    Most are words alone, which every tokenizer splits alike. Every fourth shows something on which tokenizers
    differ: capitals, punctuation, accents, spaces, a word of more than 100 bytes, other scripts.

    Args:
        vocabulary: Words that are a token each; other pieces are passed over.
        max_length: Most tokens of a text, special tokens included.
        count: How many texts, 2 or more.
        seed: Seed of the draw.

    Returns:
        ``count`` texts, the same for the same arguments.
    """
    draw, words = random.Random(seed), _words(vocabulary)
    longest = min(64, max_length - 2)
    texts = ["", " ".join(draw.choices(words, k=max_length + 8))]
    for number in range(1, count - 1):
        dressed = number % _DRESSED == 0
        length = draw.randint(2, _DRESSED) if dressed else draw.randint(1, longest)
        drawn = draw.choices(words, k=min(length, longest))
        dress = _DRESSES[number // _DRESSED % len(_DRESSES)] if dressed else " ".join
        texts.append(dress(drawn))
    return texts


def draw_texts(vocabulary: Sequence[str], lengths: Iterable[int], draw: random.Random) -> list[str]:
    """Draws texts of given lengths from a vocabulary.

    Args:
        vocabulary: Words that are a token each; other pieces are passed over.
        lengths: Of each text, the number of its words, each of which is a token.
        draw: Draws the words.

    Returns:
        The texts.
    """
    words = _words(vocabulary)
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


def _words(vocabulary: Sequence[str]) -> list[str]:
    """Whole words; plain ones, which are the same to every tokenizer, where there are enough and not few."""
    whole = [piece for piece in vocabulary if piece.isalpha()]
    plain = [piece for piece in whole if piece.isascii() and piece.islower()]
    return (plain if len(plain) >= max(100, len(whole) // 2) else whole) or list(vocabulary)


@dataclass(frozen=True)
class TextInputs:
    """Texts with the ids that the model's tokenizer gives them.

    Attributes:
        texts: The texts.
        token_ids: The model's ids of each, not padded: one row, or a row a window, whose logits (or the
            logarithms of whose probabilities) are averaged.
        preprocessor: The tokenizer's settings, ``window_stride``, ``max_windows``, ``pad_id`` and
            ``vocabulary_sha256``, the checksum of its own vocabulary file.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[tuple[int, ...], ...], ...]
    preprocessor: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    @staticmethod
    def draw(preprocessor: Any, *, seed: int) -> list[bytes]:
        """Draws the inputs of a model.

        Args:
            preprocessor: Its tokenizer.
            seed: Seed of the draw; with another one, others of the same kinds in the same order come.

        Returns:
            UTF-8 texts, the same every time.
        """
        texts = make_golden_texts(preprocessor.words, max_length=preprocessor.max_length, seed=seed)
        return [text.encode("utf-8") for text in texts]

    @staticmethod
    def draw_like(preprocessor: Any, features: Sequence[str]) -> list[bytes]:
        """Draws an input for each of some texts, with as many tokens and none of its words.

        Args:
            preprocessor: The model's tokenizer.
            features: The texts.

        Returns:
            UTF-8 texts, the same every time.
        """
        lengths = (preprocessor.encode(features).full_lengths - _SPECIAL_TOKENS).tolist()
        texts = draw_texts(preprocessor.words, lengths, random.Random(0))
        return [text.encode("utf-8") for text in texts]

    @classmethod
    def observe(cls, preprocessor: Any, probe: Probe, rows: Sequence[int]) -> Self:
        """Notes what the model's tokenizer makes of the inputs.

        Args:
            preprocessor: The tokenizer.
            probe: Rows, some of which are the inputs.
            rows: Which of them.

        Returns:
            The inputs.
        """
        max_length = preprocessor.max_length
        settings = {
            **preprocessor.settings(),
            "window_stride": window_stride(max_length),
            "max_windows": MAX_WINDOWS,
            "pad_id": preprocessor.pad_id,
            "vocabulary_sha256": hashlib.sha256(preprocessor.vocabulary_content()).hexdigest(),
        }
        texts = tuple(probe.features[row].decode("utf-8") for row in rows)
        ids = token_ids(probe)
        return cls(texts, tuple(ids[row] for row in rows), settings)

    def probe(self, tensors: Sequence[str]) -> Probe:
        """Returns the inputs in the forms that artifacts take, made without a tokenizer.

        Args:
            tensors: Names of the model's input tensors.
        """
        windows = [ids for rows in self.token_ids for ids in rows]
        shape = (len(windows), int(self.preprocessor["max_length"]))
        ids = np.full(shape, self.preprocessor["pad_id"], np.int32)
        padding_mask = np.zeros(shape, np.int32)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = window
            padding_mask[row, : len(window)] = 1
        made = {"token_ids": ids, "padding_mask": padding_mask, "segment_ids": np.zeros(shape, np.int32)}
        owners = np.repeat(np.arange(len(self.texts)), [len(rows) for rows in self.token_ids])
        split = len(windows) > len(self.texts)
        features = [text.encode("utf-8") for text in self.texts]
        return Probe(features, {name: made[name] for name in tensors}, owners if split else None)

    def to_rows(self) -> list[dict[str, Any]]:
        """Returns a mapping for each input, as JSON takes it."""
        pairs = zip(self.texts, self.token_ids, strict=True)
        return [{"text": text, "token_ids": ids} for text, ids in pairs]

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], preprocessor: Mapping[str, Any]) -> Self:
        """Reads what `to_rows` returned.

        Args:
            rows: A mapping for each input.
            preprocessor: The tokenizer's settings.

        Returns:
            The inputs.
        """
        texts = tuple(row["text"] for row in rows)
        ids = tuple(tuple(map(tuple, row["token_ids"])) for row in rows)
        return cls(texts, ids, dict(preprocessor))

    def describe(self, row: int) -> str:
        """Words what kind of input one is.

        Args:
            row: Its number.
        """
        words = len(self.texts[row].split())
        if not words:
            return "the empty text"
        longer = words > int(self.preprocessor["max_length"])
        return "the text beyond max_length" if longer else f"a text of {words} words"


def token_ids(probe: Probe) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Takes the padding off the ids of a probe.

    Args:
        probe: Rows of texts.

    Returns:
        The ids of each text's windows.
    """
    lengths = probe.tensors["padding_mask"].sum(axis=1)
    rows = zip(probe.tensors["token_ids"], lengths, strict=True)
    ids: list[list[tuple[int, ...]]] = [[] for _ in range(len(probe))]
    owners = range(len(probe)) if probe.owners is None else probe.owners.tolist()
    for owner, (row, length) in zip(owners, rows, strict=True):
        ids[owner].append(tuple(row[:length].tolist()))
    return tuple(map(tuple, ids))
