"""What every tokenizer of texts shares: special tokens, lengths, windows, and rows of ids."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.bucketing import TokenRows
from tfapp.data.encoded import MAX_WINDOWS, EncodedTexts, window_stride
from tfapp.errors import ConfigError, nearest

DEFAULT_MAX_LENGTH = 256
LONG_TEXTS = ("truncate", "windows")
_CHUNK = 1024


class Tokenizer(tf.Module):  # type: ignore[misc]
    """Turns strings into the input ids of an encoder, alike in training, in a SavedModel and in TFLite.

    It is a `tf.Module`, so a SavedModel or a TFLite file that uses it carries the vocabulary. A member of the
    family sets the ids of the special tokens and says how texts become pieces.

    Args:
        max_length: Most tokens of a text or a window, the two special ones included; 3 or more.
        long_texts: What happens to longer texts: ``"truncate"``, or ``"windows"``.

    Attributes:
        pad_id: The id that fills rows.
        unk_id: The id of what the vocabulary has no piece for.
        cls_id: The id that every row begins with.
        sep_id: The id that ends a row.

    Raises:
        ConfigError: When ``max_length`` or ``long_texts`` cannot be used.
    """

    kind: ClassVar[str]
    """Its key in `TOKENIZERS`."""
    vocabulary_file: ClassVar[str]
    """Name of the file that carries the vocabulary beside models that take ids."""
    vocabulary_description: ClassVar[str]
    """What that file holds, in a sentence."""
    feature_name = "text"
    tensor_endpoint = "serve_ids"
    tensor_dtypes: ClassVar[dict[str, str]] = {}
    variants = ("saved_model", "keras", "float32", "float16", "dynamic", "text", "onnx")
    # What a browser can run, the best first: in WebAssembly, 8-bit weights make encoders faster by half.
    web_variants = ("dynamic", "float16", "float32")

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int

    def __init__(self, *, max_length: int, long_texts: str) -> None:
        super().__init__(name=f"{self.kind}_tokenizer")
        self.max_length = max_length
        self.long_texts = long_texts

    @property
    @abc.abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """Pieces in the order of their ids."""

    @property
    @abc.abstractmethod
    def words(self) -> list[str]:
        """Strings of letters that are one token each when they stand between spaces."""

    @property
    @abc.abstractmethod
    def lowercase(self) -> bool:
        """Whether texts are lower-cased and freed of accents."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """How ids are made of a text, for people who read the metadata of a model that takes ids."""

    @abc.abstractmethod
    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into the ids of pieces without special tokens.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            int32 ``(batch, None)``.
        """

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the pieces that no vocabulary can do without."""
        return self.pad_id, self.unk_id, self.cls_id, self.sep_id

    @property
    @abc.abstractmethod
    def fallback_ids(self) -> npt.NDArray[np.int32]:
        """Ids of the pieces that spell every text by characters, special ones included, int32, ascending.

        With them among the kept pieces, no character newly becomes unknown.
        """

    @abc.abstractmethod
    def cut(self, keep_ids: Sequence[int] | npt.NDArray[np.int32]) -> tuple[Self, npt.NDArray[np.int32]]:
        """Makes the tokenizer of some of the pieces.

        Args:
            keep_ids: Ids of the pieces to keep, in any order; special tokens are kept anyway.

        Returns:
            The new tokenizer, and the old id of each of its pieces in the order of the new ids, which is that
            of the old ones. A text all of whose pieces are kept is split into the same ones.
        """

    @abc.abstractmethod
    def with_replaced(self, replaced: Mapping[str, str]) -> Self:
        """Makes a tokenizer that reads some characters as others, wherever it runs.

        Args:
            replaced: Chinese characters, and the one that each is read as; those for which the vocabulary has
                no piece are left as they are.

        Returns:
            The tokenizer, which has the same vocabulary.
        """

    @abc.abstractmethod
    def vocabulary_content(self) -> bytes:
        """The content of its `vocabulary_file`."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Its family, and all arguments but the vocabulary that build an equal one, as JSON takes them."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """What `from_config` builds an equal tokenizer from, as JSON takes it."""

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from `get_config`'s answer."""

    @classmethod
    @abc.abstractmethod
    def from_file(cls, content: bytes, settings: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from the content of its `vocabulary_file` and its `settings`."""

    @property
    def max_length(self) -> int:
        """Most tokens of a text, the two special ones included."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        if value < 3:
            raise ConfigError(
                f"max_length = {value}: at least 3 tokens are needed, a piece between two special ones."
            )
        self._max_length = int(value)

    @property
    def long_texts(self) -> str:
        """What happens beyond ``max_length``: ``"truncate"``, or ``"windows"`` whose logits are averaged."""
        return self._long_texts

    @long_texts.setter
    def long_texts(self, value: str) -> None:
        if value not in LONG_TEXTS:
            raise ConfigError(f"long_texts = {value!r}; {nearest(value, LONG_TEXTS)}")
        self._long_texts = value

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

    def rows(self, texts: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """Encodes a batch as ``long_texts`` says.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            As `__call__`, but a row a window; and the number of each row's text, ascending, int32
            ``(rows,)``, or None where every row is a text.
        """
        if self.long_texts == "truncate":
            return self(texts), None
        pieces = self.tokenize(texts)
        lengths = tf.cast(pieces.row_lengths(), tf.int32)
        counts = self._window_counts(lengths)
        owners = tf.repeat(tf.range(tf.size(counts)), counts)
        firsts = tf.gather(tf.cumsum(counts, exclusive=True), owners)
        starts = (tf.range(tf.size(owners)) - firsts) * window_stride(self.max_length)
        begin = tf.gather(tf.cast(pieces.row_starts(), tf.int32), owners)
        return self.gather(pieces.values, begin + starts, tf.gather(lengths, owners) - starts), owners

    def windows(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encodes all windows of one text with operators that TFLite has.

        Args:
            text: A UTF-8 string ``(1,)``.

        Returns:
            As `__call__`, a row a window.
        """
        pieces = self.tokenize(text).values
        length = tf.size(pieces)
        starts = tf.range(self._window_counts(length)) * window_stride(self.max_length)
        return self.gather(pieces, starts, length - starts)

    def _window_counts(self, lengths: tf.Tensor) -> tf.Tensor:
        over = lengths - (self.max_length - 2)
        return tf.clip_by_value(1 - (-over // window_stride(self.max_length)), 1, MAX_WINDOWS)

    def gather(self, pieces: tf.Tensor, starts: tf.Tensor, left: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers rows out of the pieces of many texts.

        Args:
            pieces: Ids of all pieces, one text behind the other, int32 ``(pieces,)``.
            starts: Where each row begins, int32 ``(rows,)``.
            left: How many pieces of its text are left there, int32 ``(rows,)``.

        Returns:
            As `__call__`, long rows cut.
        """
        kept = tf.minimum(left, self.max_length - 2)[:, tf.newaxis]
        position = tf.range(tf.maximum(0, tf.reduce_max(kept)))[tf.newaxis]
        source = tf.where(position < kept, starts[:, tf.newaxis] + position, tf.size(pieces))
        body = tf.gather(tf.concat([pieces, [self.pad_id]], axis=0), source)
        return self._with_special_tokens(body, kept[:, 0])

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
            max_length: Most tokens of a row, with the two special ones; ``self.max_length`` when None.

        Returns:
            The ids with the special tokens, long texts cut or split as ``long_texts`` says, and each text's
            length before that.
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
        whole = EncodedTexts(ids, row_splits, full, int(full.max(initial=0)), strings=texts)
        return whole.shorten(limit, self.long_texts)

    def make_rows(self, encoded: EncodedTexts, *, inputs: Sequence[str], pad_to: int = 1) -> TokenRows:
        """Makes rows that batches are gathered from.

        Args:
            encoded: What `encode` gives.
            inputs: Names of the inputs that the model declares.
            pad_to: Widths are rounded up to a multiple of this many tokens.

        Returns:
            The rows.
        """
        return TokenRows(encoded, pad_id=self.pad_id, pad_to=pad_to, inputs=inputs)

    def fixed(
        self, texts: Sequence[str]
    ) -> tuple[dict[str, npt.NDArray[np.int32]], npt.NDArray[np.int64] | None]:
        """Encodes any number of texts, padded to ``max_length``.

        Args:
            texts: The texts.

        Returns:
            As `rows`, with ``length == max_length``.
        """
        encoded = self.encode(texts)
        position = np.arange(self.max_length)
        mask = position < encoded.lengths[:, np.newaxis]
        ids = np.full(mask.shape, self.pad_id, np.int32)
        ids[mask] = encoded.values
        inputs = {"token_ids": ids, "padding_mask": mask.astype(np.int32), "segment_ids": np.zeros_like(ids)}
        return inputs, encoded.texts

    def web_settings(self) -> dict[str, Any]:
        """What a web page needs beside the vocabulary file to encode texts alike, as JSON takes it."""
        return {
            "tokenizer": self.kind,
            "max_length": self.max_length,
            "long_texts": self.long_texts,
            "window_stride": window_stride(self.max_length),
            "max_windows": MAX_WINDOWS,
        }

    def asset_files(self) -> dict[str, bytes]:
        """The files an edge device needs to tokenise."""
        return {self.vocabulary_file: self.vocabulary_content()}
