"""Unigram SentencePiece, XLM-R's way to split texts of any script, by TF.Text's kernel that TFLite has."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from tfapp.data.tokenizers._rules import compile_rules, read_rules
from tfapp.data.tokenizers._tokenizer import DEFAULT_MAX_LENGTH, Tokenizer
from tfapp.errors import WeightsError

# Its messages are made at run time, where type checkers do not see them.
_proto: Any = sentencepiece_model_pb2
_SPACE = "\u2581"
"""What a piece has in the place of a space."""


class SentencePieceTokenizer(Tokenizer):
    """Turns strings of any script into an encoder's input ids, alike in training, SavedModel and TFLite.

    The model's own rules normalise the text (XLM-R's fold full-width forms, for one), a space is put before
    it, and the most probable of all ways to split it is taken, as Google's library does but where two are
    equally probable. ``cls_id`` and ``sep_id`` are the ids of
    ``<s>`` and ``</s>``; what no piece covers becomes ``<unk>``. Special tokens written in a text are text.

    Args:
        model: A serialized ``ModelProto`` of SentencePiece of the unigram kind, its pieces in the order of
            the encoder's ids, with ids for ``<s>``, ``<pad>``, ``</s>`` and ``<unk>``.
        max_length: Most tokens of a text or a window, ``<s>`` and ``</s>`` included; 3 or more.
        long_texts: What happens to longer texts: ``"truncate"``, or ``"windows"``.

    Raises:
        ConfigError: When ``max_length`` or ``long_texts`` cannot be used.
        WeightsError: When the model is damaged, of another kind, or lacks a special token.

    Reference:
        Kudo 2018, Subword Regularization, arXiv:1804.10959; Kudo and Richardson 2018, SentencePiece,
        arXiv:1808.06226.
    """

    kind = "sentencepiece"
    vocabulary_file = "sentencepiece.model"
    vocabulary_description = "SentencePiece's ModelProto, its pieces in the order of the ids."

    def __init__(
        self,
        model: bytes,
        *,
        max_length: int = DEFAULT_MAX_LENGTH,
        long_texts: Literal["truncate", "windows"] = "truncate",
    ) -> None:
        super().__init__(max_length=max_length, long_texts=long_texts)
        parsed = _parse(model)
        trainer = parsed.trainer_spec
        self._model = bytes(model)
        self._pieces = tuple(piece.piece for piece in parsed.pieces)
        self.pad_id, self.unk_id = trainer.pad_id, trainer.unk_id
        self.cls_id, self.sep_id = trainer.bos_id, trainer.eos_id
        self._kernel = tf_text.FastSentencepieceTokenizer(self._model)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Pieces in the order of their ids; a space is U+2581 in them."""
        return self._pieces

    @property
    def words(self) -> list[str]:
        """Pieces that begin a word and consist of letters, without their space."""
        return [piece[1:] for piece in self._pieces if piece.startswith(_SPACE) and piece[1:].isalpha()]

    @property
    def lowercase(self) -> bool:
        """False: normalising is the model's own affair."""
        return False

    @property
    def description(self) -> str:
        """How ids are made of a text, in a sentence."""
        return (
            f"The text in SentencePiece's unigram pieces of {self.vocabulary_file}: <s>, at most "
            f"{self.max_length - 2} pieces, </s>, then <pad> up to {self.max_length}."
        )

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into the ids of their most probable pieces, without special tokens.

        Args:
            texts: UTF-8 strings ``(batch,)``.

        Returns:
            int32 ``(batch, None)``.
        """
        return self._kernel.tokenize(texts)

    @property
    def fallback_ids(self) -> npt.NDArray[np.int32]:
        """Ids of pieces of one character, and of those whose characters have none, int32, ascending."""
        single = {piece for piece in self._pieces if len(piece) == 1}
        kept = [
            number
            for number, piece in enumerate(self._pieces)
            if piece in single or not single.issuperset(piece)
        ]
        return np.union1d(self.special_ids, kept).astype(np.int32)

    def cut(self, keep_ids: Sequence[int] | npt.NDArray[np.int32]) -> tuple[Self, npt.NDArray[np.int32]]:
        """Makes a tokenizer with fewer pieces.

        A text whose pieces are all kept is split into the same pieces as before: their scores stay, and so
        does the lowest of all, from which SentencePiece derives what an unknown character costs. Other texts
        are split into kept pieces, and characters without any become ``<unk>``.

        Args:
            keep_ids: Ids of pieces to keep, in any order; special tokens and the piece of the lowest score
                stay anyway.

        Returns:
            The tokenizer, and the old id of each of its pieces, int32, ascending.

        Raises:
            WeightsError: When an id is none of the vocabulary's.
        """
        parsed = _parse(self._model)
        wrong = [number for number in keep_ids if not 0 <= number < len(self._pieces)]
        if wrong:
            raise WeightsError(f"piece {wrong[0]}: the vocabulary ends at {len(self._pieces) - 1}.")
        normal = [number for number, piece in enumerate(parsed.pieces) if piece.type == _NORMAL]
        special = set(range(len(self._pieces))) - set(normal)
        least = min(normal, key=lambda number: parsed.pieces[number].score, default=None)
        kept = sorted(
            special | {int(number) for number in keep_ids} | ({least} if least is not None else set())
        )
        pieces = [parsed.pieces[number] for number in kept]
        smaller = type(parsed)()
        smaller.CopyFrom(parsed)
        del smaller.pieces[:]
        smaller.pieces.extend(pieces)
        trainer = smaller.trainer_spec
        trainer.vocab_size = len(kept)
        for name in ("pad_id", "unk_id", "bos_id", "eos_id"):
            setattr(trainer, name, kept.index(getattr(trainer, name)))
        content = smaller.SerializeToString(deterministic=True)
        return self.from_file(content, self.settings()), np.array(kept, np.int32)

    def with_replaced(self, replaced: Mapping[str, str]) -> Self:
        """Makes a tokenizer that reads some characters as others, by rules in the model itself.

        Args:
            replaced: Chinese characters, and the one that each is read as; those for which the vocabulary has
                no piece are left as they are.

        Returns:
            The tokenizer, which has the same vocabulary.
        """
        known = {piece.removeprefix(_SPACE) for piece in self._pieces}
        table = str.maketrans({old: new for old, new in replaced.items() if new in known})
        parsed = _parse(self._model)
        rules = read_rules(parsed.normalizer_spec.precompiled_charsmap)
        changed = {old: new.translate(table) for old, new in rules.items()}
        added = {chr(old): new for old, new in table.items() if chr(old) not in rules}
        parsed.normalizer_spec.precompiled_charsmap = compile_rules(changed | added)
        return self.from_file(parsed.SerializeToString(deterministic=True), self.settings())

    def vocabulary_content(self) -> bytes:
        """``sentencepiece.model``, the ``ModelProto``."""
        return self._model

    def settings(self) -> dict[str, Any]:
        """Its family and all arguments but the model."""
        return {
            "tokenizer": self.kind,
            "lowercase": self.lowercase,
            "max_length": self.max_length,
            "long_texts": self.long_texts,
        }

    def get_config(self) -> dict[str, Any]:
        """`settings` and the model in base 64."""
        return {**self.settings(), "model": base64.b64encode(self._model).decode("ascii")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from `get_config`'s answer."""
        return cls.from_file(base64.b64decode(config["model"]), config)

    @classmethod
    def from_file(cls, content: bytes, settings: Mapping[str, Any]) -> Self:
        """Builds a tokenizer from ``sentencepiece.model`` and its `settings`."""
        return cls(content, max_length=int(settings["max_length"]), long_texts=settings["long_texts"])


_NORMAL = _proto.ModelProto.SentencePiece.NORMAL


def _parse(model: bytes) -> Any:
    try:
        parsed = _proto.ModelProto.FromString(model)
    except DecodeError as error:
        raise WeightsError("the SentencePiece model is damaged or none at all.") from error
    trainer = parsed.trainer_spec
    if trainer.model_type != _proto.TrainerSpec.UNIGRAM:
        kind = _proto.TrainerSpec.ModelType.Name(trainer.model_type)
        raise WeightsError(f"the SentencePiece model is of the kind {kind}; only UNIGRAM runs in TFLite.")
    if trainer.byte_fallback:
        raise WeightsError("the SentencePiece model falls back to bytes, which TF.Text's kernel does not.")
    ids = {"<s>": trainer.bos_id, "<pad>": trainer.pad_id, "</s>": trainer.eos_id, "<unk>": trainer.unk_id}
    lacking = [name for name, number in ids.items() if not 0 <= number < len(parsed.pieces)]
    if lacking:
        raise WeightsError(
            f"the SentencePiece model of {len(parsed.pieces)} pieces has no id for {', '.join(lacking)}, "
            "which encoders need; that of Hugging Face's tokenizer.json does."
        )
    return parsed
