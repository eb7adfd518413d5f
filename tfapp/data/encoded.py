"""Token ids of many texts as a ragged array, and what becomes of long ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.digests import digest

MAX_WINDOWS = 16
"""Most windows of a text: what a server computes for one text stays bounded."""


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of many texts, one after another, as a ragged array: a row a text, or a row a window.

    Attributes:
        values: Token ids of all rows, int32 ``(tokens,)``, special tokens included.
        row_splits: Row ``i`` is ``values[row_splits[i]:row_splits[i + 1]]``, int64 ``(rows + 1,)``.
        full_lengths: Length of each text in tokens before it was cut or split, int32 ``(texts,)``.
        max_length: Where rows were cut, in tokens, special tokens included.
        texts: The number of the text that each row comes from, ascending, int64 ``(rows,)``; None where
            every row is a text.
        strings: The text of each row before it was encoded; None where rows are windows or it is not known.
    """

    values: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]
    full_lengths: npt.NDArray[np.int32]
    max_length: int
    texts: npt.NDArray[np.int64] | None = None
    strings: Sequence[str] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Length of each row in tokens after cutting, int32 ``(rows,)``."""
        return np.diff(self.row_splits).astype(np.int32)

    def fingerprint(self) -> str:
        """Checksum of all ids and of where rows begin."""
        return digest(self.values, self.row_splits)

    def cut(self, max_length: int) -> EncodedTexts:
        """Cuts every row at ``max_length`` tokens, keeping its last token ([SEP]).

        Args:
            max_length: Most tokens a row may have, special tokens included; 3 or more.

        Returns:
            The same rows, shorter where they have to be; ``self`` when nothing is longer.
        """
        lengths = self.lengths
        if lengths.size == 0 or int(lengths.max()) <= max_length:
            return self
        kept = np.minimum(lengths, max_length)
        row_splits = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        offsets = np.arange(row_splits[-1]) - np.repeat(row_splits[:-1], kept)
        source = np.repeat(self.row_splits[:-1], kept) + offsets
        last = offsets == np.repeat(kept, kept) - 1
        source[last] = self.row_splits[1:] - 1
        values = self.values[source]
        return EncodedTexts(values, row_splits, self.full_lengths, max_length, strings=self.strings)

    def windows(self, max_length: int) -> EncodedTexts:
        """Splits long rows into overlapping windows, each with its own [CLS] and [SEP].

        Args:
            max_length: Tokens of a window, special tokens included; 3 or more.

        Returns:
            A row a window, `MAX_WINDOWS` a text at most; ``self`` when nothing is longer.
        """
        body = self.lengths.astype(np.int64) - 2
        room, stride = max_length - 2, window_stride(max_length)
        if int(body.max(initial=0)) <= room:
            return self
        counts = np.minimum(1 + np.maximum(0, -(-(body - room) // stride)), MAX_WINDOWS)
        texts = np.repeat(np.arange(len(self)), counts)
        starts = (np.arange(len(texts)) - np.repeat(np.cumsum(counts) - counts, counts)) * stride
        kept = np.minimum(body[texts] - starts, room) + 2
        row_splits = np.concatenate([[0], np.cumsum(kept)])
        offsets = np.arange(row_splits[-1]) - np.repeat(row_splits[:-1], kept)
        source = np.repeat(self.row_splits[texts] + starts, kept) + offsets
        source[row_splits[:-1]] = self.row_splits[texts]
        source[row_splits[1:] - 1] = self.row_splits[texts + 1] - 1
        return EncodedTexts(self.values[source], row_splits, self.full_lengths, max_length, texts)

    def shorten(self, max_length: int, long_texts: str) -> EncodedTexts:
        """Cuts long rows, or splits them into windows.

        Args:
            max_length: Most tokens of a row, special tokens included; 3 or more.
            long_texts: ``"truncate"`` or ``"windows"``.

        Returns:
            Rows of at most ``max_length`` tokens.
        """
        return self.windows(max_length) if long_texts == "windows" else self.cut(max_length)

    def average(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Averages what was computed for rows over the windows of each text.

        Args:
            values: Such as logits, ``(rows, ...)``.

        Returns:
            ``(texts, ...)``.
        """
        return values if self.texts is None else average_windows(values, self.texts)


def window_stride(max_length: int) -> int:
    """Tells how far a window starts behind the one before: windows share a quarter of their tokens.

    Args:
        max_length: Tokens of a window, special tokens included; 3 or more.

    Returns:
        Text tokens, 1 or more.
    """
    room = max_length - 2
    return max(1, room - room // 4)


def window_reach(max_length: int) -> int:
    """Tells how long a text may be before its last window ends.

    Args:
        max_length: Tokens of a window, special tokens included; 3 or more.

    Returns:
        Tokens, special tokens included.
    """
    return max_length + (MAX_WINDOWS - 1) * window_stride(max_length)


def average_windows(values: npt.NDArray[Any], texts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Averages over the windows of each text.

    Args:
        values: Such as logits, ``(windows, ...)``.
        texts: The number of each window's text, ascending from 0 without a gap, ``(windows,)``.

    Returns:
        ``(texts, ...)``.
    """
    firsts = np.flatnonzero(np.diff(texts, prepend=-1))
    sums = np.add.reduceat(values, firsts, axis=0)
    counts = np.diff(np.append(firsts, len(texts))).reshape(-1, *[1] * (values.ndim - 1))
    return (sums / counts).astype(values.dtype)
