"""The one tokenizer of training, serving and TFLite: WordPiece by TF.Text's linear-time kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_text as tf_text

from tfapp.errors import ConfigError, WeightsError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
DEFAULT_MAX_LENGTH = 256
_CHUNK = 1024


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of many texts, one after another, as a ragged array.

    Attributes:
        values: Token ids of all rows, int32 ``(tokens,)``, special tokens included.
        row_splits: Row ``i`` is ``values[row_splits[i]:row_splits[i + 1]]``, int64 ``(rows + 1,)``.
        full_lengths: Length of each row in tokens before it was cut, int32 ``(rows,)``.
        max_length: Where rows were cut, in tokens, special tokens included.
    """

    values: npt.NDArray[np.int32]
    row_splits: npt.NDArray[np.int64]
    full_lengths: npt.NDArray[np.int32]
    max_length: int

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Length of each row in tokens after cutting, int32 ``(rows,)``."""
        return np.diff(self.row_splits).astype(np.int32)

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
        return EncodedTexts(self.values[source], row_splits, self.full_lengths, max_length)

    def windows(self, length: int, stride: int) -> tuple[EncodedTexts, npt.NDArray[np.int64]]:
        """Splits long rows into overlapping windows, each with its own [CLS] and [SEP].

        Args:
            length: Tokens of a window, special tokens included; 3 or more.
            stride: Text tokens from one window's start to the next; 1 up to ``length - 2``.

        Returns:
            The windows, and for each the row that it comes from, int64 ``(windows,)``.
        """
        room = length - 2
        pieces: list[npt.NDArray[np.int32]] = []
        rows: list[int] = []
        for row in range(len(self)):
            ids = self.values[self.row_splits[row] : self.row_splits[row + 1]]
            first, body, last = ids[:1], ids[1:-1], ids[-1:]
            count = 1 + max(0, -(-(len(body) - room) // stride))
            for start in range(0, count * stride, stride):
                pieces.append(np.concatenate([first, body[start : start + room], last]))
                rows.append(row)
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        row_splits = np.concatenate([[0], np.cumsum(lengths)])
        values = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        return EncodedTexts(values, row_splits, lengths.astype(np.int32), length), np.array(rows, np.int64)


class WordPieceTokenizer(tf.Module):  # type: ignore[misc]
    """Turns strings into BERT's input ids, alike in training, in a SavedModel and in TFLite.

    It is a `tf.Module`, so a SavedModel or a TFLite file that uses it carries the vocabulary.

    Args:
        vocabulary: WordPieces in the order of their ids, with [PAD], [UNK], [CLS] and [SEP].
        lowercase: Whether the model was trained on lower-cased text without accents.
        max_length: Most tokens of a text, [CLS] and [SEP] included; 3 or more.

    Raises:
        WeightsError: When the vocabulary lacks a special token or holds a piece twice.
        ConfigError: When ``max_length`` is below 3.

    Reference:
        Song et al. 2021, Fast WordPiece Tokenization, arXiv:2012.15524.
    """

    feature_name = "text"
    tensor_endpoint = "serve_ids"

    def __init__(
        self, vocabulary: Sequence[str], *, lowercase: bool = True, max_length: int = DEFAULT_MAX_LENGTH
    ) -> None:
        super().__init__(name="wordpiece_tokenizer")
        pieces = list(vocabulary)
        missing = [token for token in SPECIAL_TOKENS if token not in pieces]
        if missing:
            raise WeightsError(
                f"the vocabulary of {len(pieces)} pieces lacks {', '.join(missing)}: "
                "it is not a BERT vocab.txt with one piece a line."
            )
        if len(set(pieces)) != len(pieces):
            raise WeightsError("the vocabulary holds a piece twice: ids would not match the embeddings.")
        self._pieces = tuple(pieces)
        self.lowercase = lowercase
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (pieces.index(t) for t in SPECIAL_TOKENS)
        self._kernel = tf_text.FastBertTokenizer(
            pieces, token_out_type=tf.int32, lower_case_nfd_strip_accents=lowercase
        )
        self.max_length = max_length

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """WordPieces in the order of their ids."""
        return self._pieces

    @property
    def max_length(self) -> int:
        """Most tokens of a text, [CLS] and [SEP] included."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        if value < 3:
            raise ConfigError(
                f"max_length = {value}: at least 3 tokens ([CLS], one piece, [SEP]) are needed."
            )
        self._max_length = int(value)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into WordPiece ids without special tokens.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            int32 ``(batch, None)``.
        """
        return self._kernel.tokenize(texts).merge_dims(1, -1)

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encodes a batch, padded to its longest text.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            ``token_ids``, ``padding_mask`` (1 for tokens, 0 for padding) and ``segment_ids`` (zeros), int32
            ``(batch, length)`` with ``length <= max_length``.
        """
        pieces = self.tokenize(texts)
        # A dense slice: ragged slicing has no TFLite kernel.
        body = pieces.to_tensor(default_value=self.pad_id)[:, : self.max_length - 2]
        return self._with_special_tokens(body, pieces.row_lengths())

    def fixed(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encodes a batch, padded to ``max_length``.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            As `__call__`, with ``length == max_length``.
        """
        pieces = self.tokenize(texts)
        body = pieces.to_tensor(default_value=self.pad_id, shape=[None, self.max_length - 2])
        return self._with_special_tokens(body, pieces.row_lengths())

    def _with_special_tokens(self, body: tf.Tensor, row_lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = tf.pad(body, [[0, 0], [1, 1]], constant_values=self.pad_id)
        last = tf.minimum(tf.cast(row_lengths, tf.int32), self.max_length - 2)[:, tf.newaxis] + 1
        position = tf.range(tf.shape(ids)[1])[tf.newaxis]
        ids = tf.where(position == 0, self.cls_id, tf.where(position == last, self.sep_id, ids))
        mask = tf.cast(position <= last, tf.int32)
        return {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}

    def encode(self, texts: Sequence[str], *, max_length: int | None = None) -> EncodedTexts:
        """Encodes any number of texts at once, without padding.

        Args:
            texts: The texts, any number of them.
            max_length: Where to cut, in tokens with [CLS] and [SEP]; ``self.max_length`` when None.

        Returns:
            The ids with [CLS] and [SEP], and each text's length before cutting.
        """
        limit = self.max_length if max_length is None else max_length
        values: list[npt.NDArray[np.int32]] = []
        counts: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(texts), _CHUNK):
            ragged = self.tokenize(tf.constant(list(texts[start : start + _CHUNK]), tf.string))
            values.append(ragged.values.numpy())
            counts.append(ragged.row_lengths().numpy())
        body = np.concatenate(values) if values else np.zeros(0, np.int32)
        lengths = np.concatenate(counts) if counts else np.zeros(0, np.int64)
        splits = np.concatenate([[0], np.cumsum(lengths)])
        row_splits = splits + 2 * np.arange(len(splits))
        ids = np.empty(int(row_splits[-1]), np.int32)
        ids[np.arange(len(body)) + np.repeat(2 * np.arange(len(lengths)) + 1, lengths)] = body
        ids[row_splits[:-1]] = self.cls_id
        ids[row_splits[1:] - 1] = self.sep_id
        full = (lengths + 2).astype(np.int32)
        return EncodedTexts(ids, row_splits, full, int(full.max(initial=0))).cut(limit)

    def asset_files(self) -> dict[str, bytes]:
        """The files an edge device needs to tokenise: ``vocab.txt``, one piece a line."""
        return {"vocab.txt": ("\n".join(self._pieces) + "\n").encode("utf-8")}

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal tokenizer."""
        return {
            "vocabulary": list(self._pieces),
            "lowercase": self.lowercase,
            "max_length": self.max_length,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> WordPieceTokenizer:
        """Builds a tokenizer from `get_config`'s answer."""
        return cls(
            config["vocabulary"], lowercase=bool(config["lowercase"]), max_length=int(config["max_length"])
        )
