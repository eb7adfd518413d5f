"""Texts of golden vectors: words of the model's vocabulary, drawn at random."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tfapp.data.encoded import MAX_WINDOWS, window_stride
from tfapp.release.probe import Probe

_SPECIAL_TOKENS = 2  # at the beginning and the end of a text


def make_golden_texts(
    vocabulary: Sequence[str], *, max_length: int, count: int = 50, seed: int = 0
) -> list[str]:
    """Draws texts from a vocabulary: the empty one, one that is too long, and others of all lengths.

    Args:
        vocabulary: WordPieces.
        max_length: Most tokens of a text, special tokens included.
        count: How many texts, 2 or more.
        seed: Seed of the draw.

    Returns:
        ``count`` texts, the same for the same arguments.
    """
    draw = random.Random(seed)
    longest = min(64, max_length - 2)
    lengths = [0, max_length + 8, *(draw.randint(1, longest) for _ in range(count - 2))]
    return draw_texts(vocabulary, lengths, draw)


def draw_texts(vocabulary: Sequence[str], lengths: Iterable[int], draw: random.Random) -> list[str]:
    """Draws texts of given lengths from a vocabulary.

    Args:
        vocabulary: WordPieces.
        lengths: Of each text, the number of its words, each of which is a token.
        draw: Draws the words.

    Returns:
        The texts.
    """
    whole = [piece for piece in vocabulary if piece.isalpha()]
    plain = [piece for piece in whole if piece.isascii() and piece.islower()]
    # Plain words are the same to every tokenizer; other scripts are used where there are too few.
    words = (plain if len(plain) >= 100 else whole) or list(vocabulary)
    return [" ".join(draw.choices(words, k=length)) for length in lengths]


@dataclass(frozen=True)
class TextInputs:
    """Texts with the ids that the model's tokenizer gives them.

    Attributes:
        texts: The texts.
        token_ids: The model's ids of each, not padded: one row, or a row a window, whose logits (or the
            logarithms of whose probabilities) are averaged.
        preprocessor: ``lowercase``, ``max_length``, ``long_texts``, ``window_stride``, ``max_windows``,
            ``pad_id`` and ``vocabulary_sha256``, the checksum of the tokenizer's own ``vocab.txt``.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[tuple[int, ...], ...], ...]
    preprocessor: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    @staticmethod
    def draw(preprocessor: Any) -> list[bytes]:
        """Draws the inputs of a model.

        Args:
            preprocessor: Its tokenizer.

        Returns:
            UTF-8 texts, the same every time.
        """
        texts = make_golden_texts(preprocessor.vocabulary, max_length=preprocessor.max_length)
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
        texts = draw_texts(preprocessor.vocabulary, lengths, random.Random(0))
        return [text.encode("utf-8") for text in texts]

    @classmethod
    def observe(cls, preprocessor: Any, probe: Probe, first: int) -> Self:
        """Notes what the model's tokenizer makes of the inputs.

        Args:
            preprocessor: The tokenizer.
            probe: Rows that end with the inputs.
            first: The row of the first of them.

        Returns:
            The inputs.
        """
        max_length = preprocessor.max_length
        vocabulary = preprocessor.asset_files()["vocab.txt"]
        settings = {
            "lowercase": preprocessor.lowercase,
            "max_length": max_length,
            "long_texts": preprocessor.long_texts,
            "window_stride": window_stride(max_length),
            "max_windows": MAX_WINDOWS,
            "pad_id": preprocessor.pad_id,
            "vocabulary_sha256": hashlib.sha256(vocabulary).hexdigest(),
        }
        texts = tuple(probe.features[row].decode("utf-8") for row in range(first, len(probe)))
        return cls(texts, token_ids(probe)[first:], settings)

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
