"""SentencePiece models out of the files that Hugging Face has of them, with the encoder's own ids."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from tfapp.errors import WeightsError

# Its messages are made at run time, where type checkers do not see them.
_proto: Any = sentencepiece_model_pb2
_kinds: Any = _proto.ModelProto.SentencePiece
SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>")
"""The pieces that XLM-R's vocabularies begin with, in the order of their ids."""
_MASK = "<mask>"
_SIGN = "\u2581"
_TOKENS = ("Metaspace", _SIGN)


def read_tokenizer_json(path: Path) -> bytes:
    """Makes a SentencePiece model of Hugging Face's ``tokenizer.json`` of an XLM-R-style encoder.

    Pieces, scores and the table of replaced characters are taken over, and the order of the pieces is that of
    the encoder's ids. SentencePiece splits texts as the file's own library does but in two cases: it drops
    spaces at the end, and where two ways to split a text are equally probable it may take the other one.

    Args:
        path: The file.

    Returns:
        The serialized ``ModelProto``.

    Raises:
        WeightsError: If the file is damaged, or of a tokenizer that is no unigram SentencePiece.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model, before = content["model"], content["pre_tokenizer"]
        found = str(model.get("type", "Unigram")), _metaspace(before)
        unigram = found == ("Unigram", _TOKENS)
        pieces = [(str(piece), float(score)) for piece, score in model["vocab"]] if unigram else []
        table = _replaced_characters(content["normalizer"]) if unigram else b""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged, or no tokenizer.json of a unigram SentencePiece model "
            f"({type(error).__name__}: {error})."
        ) from error
    if not unigram:
        raise WeightsError(f"{path}: {found[0]} behind {found[1]} is no unigram SentencePiece model.")
    begins = tuple(piece for piece, _ in pieces[: len(SPECIAL_PIECES)])
    if begins != SPECIAL_PIECES or model.get("unk_id") != SPECIAL_PIECES.index("<unk>"):
        raise WeightsError(f"{path}: its pieces begin with {begins}, XLM-R's with {SPECIAL_PIECES}.")
    return make_model(pieces, replaced_characters=table)


def with_encoder_ids(content: bytes) -> bytes:
    """Gives the pieces of XLM-R's own SentencePiece model (``sentencepiece.bpe.model``) the encoder's ids.

    The model counts ``<unk>``, ``<s>``, ``</s>`` and then the pieces; the encoder, as fairseq made it, counts
    ``<s>``, ``<pad>``, ``</s>``, ``<unk>``, the pieces, and ``<mask>``.

    Args:
        content: The serialized ``ModelProto``.

    Returns:
        The serialized ``ModelProto`` in the encoder's order.

    Raises:
        WeightsError: If the model is damaged or its pieces begin otherwise.
    """
    try:
        model = _proto.ModelProto.FromString(content)
    except DecodeError as error:
        raise WeightsError("the SentencePiece model is damaged or none at all. Download it again.") from error
    begins = [piece.piece for piece in model.pieces[:3]]
    if begins != ["<unk>", "<s>", "</s>"]:
        raise WeightsError(f"the pieces begin with {begins}, those of XLM-R's model with <unk>, <s>, </s>.")
    pieces = list(model.pieces[3:])
    del model.pieces[:]
    for name in SPECIAL_PIECES:
        model.pieces.add(piece=name, score=0.0, type=_special_kind(name))
    model.pieces.extend(pieces)
    model.pieces.add(piece=_MASK, score=0.0, type=_kinds.CONTROL)
    _set_ids(model)
    moved: bytes = model.SerializeToString(deterministic=True)
    return moved


def make_model(pieces: Sequence[tuple[str, float]], *, replaced_characters: bytes) -> bytes:
    """Makes a unigram SentencePiece model.

    Args:
        pieces: Pieces with the logarithms of their probabilities, in the order of their ids; the first are
            `SPECIAL_PIECES`.
        replaced_characters: SentencePiece's compiled table of replaced characters; empty for none.

    Returns:
        The serialized ``ModelProto``.
    """
    model = _proto.ModelProto()
    for number, (piece, score) in enumerate(pieces):
        special = number < len(SPECIAL_PIECES) or piece == _MASK
        model.pieces.add(piece=piece, score=score, type=_special_kind(piece) if special else _kinds.NORMAL)
    model.trainer_spec.model_type = _proto.TrainerSpec.UNIGRAM
    normalizer = model.normalizer_spec
    normalizer.name = "nmt_nfkc" if replaced_characters else "identity"
    normalizer.precompiled_charsmap = replaced_characters
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = normalizer.escape_whitespaces = True
    _set_ids(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _set_ids(model: Any) -> None:
    trainer = model.trainer_spec
    trainer.vocab_size = len(model.pieces)
    names = zip(("bos", "pad", "eos", "unk"), SPECIAL_PIECES, strict=True)
    for number, (role, piece) in enumerate(names):
        setattr(trainer, f"{role}_id", number)
        setattr(trainer, f"{role}_piece", piece)


def _special_kind(piece: str) -> Any:
    return _kinds.UNKNOWN if piece == "<unk>" else _kinds.CONTROL


def _replaced_characters(normalizer: Mapping[str, Any] | None) -> bytes:
    """Finds the compiled table in a normaliser; any step that SentencePiece would not do is refused."""
    table = b""
    steps = [normalizer] if normalizer else []
    while steps:
        step = steps.pop(0)
        if step["type"] == "Sequence":
            steps = [*step["normalizers"], *steps]
        elif step["type"] == "Precompiled":
            table = base64.b64decode(step["precompiled_charsmap"])
        # Runs of spaces are one to SentencePiece anyway, and spaces at the ends none.
        elif step["type"] != "Strip" and not _joins_spaces(step):
            raise ValueError(f"the normaliser {step['type']} is unknown here")
    return table


def _joins_spaces(step: Mapping[str, Any]) -> bool:
    return step.get("pattern") == {"Regex": " {2,}"} and step.get("content") in (" ", _SIGN)


def _metaspace(step: Mapping[str, Any]) -> tuple[str, str]:
    """Gives kind and sign of what puts a sign for spaces; splitting at spaces before it changes nothing."""
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    rest = [other for other in steps if other["type"] != "WhitespaceSplit"]
    if len(rest) != 1:
        raise ValueError("the pre-tokenizer has several steps")
    if rest[0].get("prepend_scheme") == "never" or rest[0].get("add_prefix_space") is False:
        raise ValueError("no space is put before a text")
    return str(rest[0]["type"]), str(rest[0].get("replacement", ""))
