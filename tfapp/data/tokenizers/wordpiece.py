"""WordPiece, BERT's way to split texts, by TF.Text's linear-time kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_text as tf_text

from tfapp.data.characters import character_table
from tfapp.data.kept_pieces import wordpiece_fallback
from tfapp.data.tokenizers._tokenizer import DEFAULT_MAX_LENGTH, Tokenizer
from tfapp.errors import WeightsError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPieceTokenizer(Tokenizer):
    """Turns strings into BERT's input ids, alike in training, in a SavedModel and in TFLite.

    Args:
        vocabulary: WordPieces in the order of their ids, with [PAD], [UNK], [CLS] and [SEP].
        lowercase: Whether the model was trained on lower-cased text without accents.
        max_length: Most tokens of a text or a window, [CLS] and [SEP] included; 3 or more.
        long_texts: What happens to longer texts: ``"truncate"``, or ``"windows"``.
        replaced: Chinese characters, and the one that each is read as, which is a piece.

    Raises:
        ConfigError: When ``max_length`` or ``long_texts`` cannot be used.
        WeightsError: When the vocabulary lacks a special token or holds a piece twice.

    Reference:
        Song et al. 2021, Fast WordPiece Tokenization, arXiv:2012.15524.
    """

    kind = "wordpiece"
    vocabulary_file = "vocab.txt"
    vocabulary_description = "WordPieces in the order of their ids, one a line."

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        lowercase: bool = True,
        max_length: int = DEFAULT_MAX_LENGTH,
        long_texts: Literal["truncate", "windows"] = "truncate",
        replaced: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(max_length=max_length, long_texts=long_texts)
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
        self._lowercase = lowercase
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (pieces.index(t) for t in SPECIAL_TOKENS)
        self._replaced = dict(replaced)
        ids = {piece: number for number, piece in enumerate(pieces)}
        # The kernel has pieces of its own for characters that are read as others, and their ids are
        # exchanged: each Chinese character is a word.
        more = [character for character in self._replaced if character not in ids]
        self._kernel = tf_text.FastBertTokenizer(
            [*pieces, *more], token_out_type=tf.int32, lower_case_nfd_strip_accents=lowercase
        )
        self._exchanged = None
        if self._replaced:
            read_as = [ids[self._replaced.get(piece, piece)] for piece in (*pieces, *more)]
            self._exchanged = tf.constant(read_as, tf.int32)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """WordPieces in the order of their ids."""
        return self._pieces

    @property
    def words(self) -> list[str]:
        """WordPieces that are whole words."""
        return [piece for piece in self._pieces if piece.isalpha()]

    @property
    def lowercase(self) -> bool:
        """Whether texts are lower-cased and freed of accents."""
        return self._lowercase

    @property
    def description(self) -> str:
        """How ids are made of a text, in a sentence."""
        case = "lower-cased, without accents, " if self.lowercase else "with its case and accents kept, "
        script = "in simplified characters, " if self._replaced else ""
        return (
            f"The text, {case}{script}in BERT's WordPieces of {self.vocabulary_file}: [CLS], at most "
            f"{self.max_length - 2} pieces, [SEP], then [PAD] up to {self.max_length}."
        )

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into WordPiece ids without special tokens.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            int32 ``(batch, None)``.
        """
        ids = self._kernel.tokenize(texts).merge_dims(1, -1)
        return ids if self._exchanged is None else ids.with_values(tf.gather(self._exchanged, ids.values))

    @property
    def fallback_ids(self) -> npt.NDArray[np.int32]:
        """Ids of the pieces that spell words of which no longer piece is kept, int32, ascending."""
        return np.union1d(self.special_ids, wordpiece_fallback(self._pieces)).astype(np.int32)

    def cut(self, keep_ids: Sequence[int] | npt.NDArray[np.int32]) -> tuple[Self, npt.NDArray[np.int32]]:
        """Makes the tokenizer of some of the pieces.

        A word one of whose pieces is left out is split into shorter ones, the longest first as ever; where
        none fits, it becomes [UNK]. With all `fallback_ids` among the pieces none newly does.

        Args:
            keep_ids: Ids of the pieces to keep, in any order; special tokens are kept anyway.

        Returns:
            The new tokenizer, and the old id of each of its pieces in the order of the new ids, which is that
            of the old ones. A text all of whose pieces are kept is split into the same ones.
        """
        kept = np.union1d(self.special_ids, keep_ids).astype(np.int32)
        pieces = [self._pieces[old] for old in kept]
        known = set(pieces)
        replaced = {old: new for old, new in self._replaced.items() if new in known}
        return self.from_config(
            {**self.settings(), "vocabulary": pieces, "replaced": _columns(replaced)}
        ), kept

    def with_replaced(self, replaced: Mapping[str, str]) -> Self:
        """Makes a tokenizer that reads some characters as others.

        Args:
            replaced: Chinese characters, and the one that each is read as; those for which the vocabulary has
                no piece are left as they are.

        Returns:
            The tokenizer, which has the same vocabulary.
        """
        known = set(self._pieces)
        kept = {old: new for old, new in replaced.items() if new in known}
        return self.from_config({**self.get_config(), "replaced": _columns(kept)})

    def vocabulary_content(self) -> bytes:
        """``vocab.txt``, one piece a line."""
        return ("\n".join(self._pieces) + "\n").encode("utf-8")

    def web_settings(self) -> dict[str, Any]:
        """What a web page needs beside ``vocab.txt`` to encode texts alike, as JSON takes it."""
        return {
            **super().web_settings(),
            "characters": character_table(lowercase=self.lowercase),
            "replaced": _columns(self._replaced),
        }

    def settings(self) -> dict[str, Any]:
        """Its family and all arguments but the vocabulary."""
        return {
            "tokenizer": self.kind,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
            "long_texts": self.long_texts,
            **({"replaced": _columns(self._replaced)} if self._replaced else {}),
        }

    def get_config(self) -> dict[str, Any]:
        """`settings` and the vocabulary."""
        return {**self.settings(), "vocabulary": list(self._pieces)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from `get_config`'s answer."""
        return cls(
            config["vocabulary"],
            lowercase=bool(config["lowercase"]),
            max_length=int(config["max_length"]),
            long_texts=config["long_texts"],
            replaced=dict(zip(*config.get("replaced", ("", "")), strict=True)),
        )

    @classmethod
    def from_file(cls, content: bytes, settings: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from ``vocab.txt`` and its `settings`."""
        pieces = content.decode("utf-8").removesuffix("\n").split("\n")
        return cls.from_config({**settings, "vocabulary": pieces})


def _columns(replaced: Mapping[str, str]) -> list[str]:
    """Writes characters and what each is read as into two strings, as short as JSON can have it."""
    return ["".join(replaced), "".join(replaced.values())]
