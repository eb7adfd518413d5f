"""A second tokenizer, reading only the vocabulary file, to see that it says what the model learned."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tfapp.data.tokenizers import SentencePieceTokenizer, tokenizer_family

_logger = logging.getLogger("tfapp")
_PAD, _UNKNOWN, _CLS, _SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def vocabulary_file(settings: Mapping[str, Any]) -> str:
    """Names the vocabulary file of a tokenizer.

    Args:
        settings: The tokenizer's settings.

    Returns:
        ``"vocab.txt"`` or ``"sentencepiece.model"``.
    """
    return tokenizer_family(settings).vocabulary_file


def tokenize_sentencepiece(content: bytes, texts: Sequence[str], *, max_length: int) -> list[list[int]]:
    """Encodes texts as a phone would that has only ``sentencepiece.model``, and Google's library.

    Args:
        content: The file.
        texts: The texts.
        max_length: Most tokens of a text, ``<s>`` and ``</s>`` included.

    Returns:
        The ids of each text with ``<s>`` and ``</s>``, not padded.

    Raises:
        ValueError: When the file is no such model.
    """
    try:
        processor = SentencePieceProcessor(model_proto=content)
        rows = processor.encode(list(texts))
    except (RuntimeError, ValueError) as error:
        raise ValueError(str(error)) from error
    first, last = processor.bos_id(), processor.eos_id()
    return [[first, *row[: max_length - 2], last] for row in rows]


def tokenize(
    content: bytes,
    texts: Sequence[str],
    *,
    lowercase: bool,
    max_length: int,
    replaced: Sequence[str] = ("", ""),
) -> list[list[int]]:
    """Encodes texts as a phone would that has only ``vocab.txt``.

    Args:
        content: ``vocab.txt``, one piece a line.
        texts: The texts.
        lowercase: Whether to lower-case and strip accents.
        max_length: Most tokens of a text, [CLS] and [SEP] included.
        replaced: Characters, and what each is read as, in two strings.

    Returns:
        The ids of each text with [CLS] and [SEP], not padded.

    Raises:
        KeyError: When the file lacks a special token.
    """
    pieces = content.decode("utf-8").split("\n")
    vocabulary = {piece: index for index, piece in enumerate(pieces) if piece}
    for token in (_PAD, _UNKNOWN, _CLS, _SEP):
        if token not in vocabulary:
            raise KeyError(token)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN, max_input_chars_per_word=100))
    bert = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    tokenizer.normalizer = normalizers.Sequence([*_folding(), bert]) if lowercase else bert
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    table = str.maketrans(*replaced)
    encodings = tokenizer.encode_batch([text.translate(table) for text in texts], add_special_tokens=False)
    return [[vocabulary[_CLS], *encoding.ids[: max_length - 2], vocabulary[_SEP]] for encoding in encodings]


def _folding() -> list[normalizers.Normalizer]:
    """Unicode's compatibility case folding, but for letters of few languages."""
    pairs = (("\u00df", "ss"), ("\u03c2", "\u03c3"))
    replaced = [normalizers.Replace(letter, folded) for letter, folded in pairs]
    return [normalizers.NFKC(), normalizers.Lowercase(), *replaced]


def check_vocabulary(
    content: bytes,
    texts: Sequence[str],
    token_ids: Sequence[npt.NDArray[np.integer] | Sequence[int]],
    settings: Mapping[str, Any],
) -> str | None:
    """Compares a vocabulary file with the model's vocabulary, and the ids that it gives with the model's.

    Other ids are no reason against the right file: tokenizers differ on rare characters and very long words.
    How many texts get the same is logged, for whoever tokenizes on a device.

    Args:
        content: The file.
        texts: Texts to encode.
        token_ids: The model's ids of each, not padded.
        settings: The tokenizer's settings, and ``vocabulary_sha256``, the checksum of its own vocabulary file
            in hexadecimal.

    Returns:
        What is wrong with the file, or None.
    """
    right = hashlib.sha256(content).hexdigest() == settings["vocabulary_sha256"]
    name, length = vocabulary_file(settings), int(settings["max_length"])
    try:
        if name == SentencePieceTokenizer.vocabulary_file:
            found = tokenize_sentencepiece(content, texts, max_length=length)
        else:
            found = tokenize(
                content,
                texts,
                lowercase=bool(settings["lowercase"]),
                max_length=length,
                replaced=settings.get("replaced", ("", "")),
            )
    except KeyError as error:
        return f"{name} lacks {error.args[0]}"
    except UnicodeDecodeError:
        return f"{name} is not UTF-8"
    except ValueError as error:
        return f"{name} cannot be read: {error}"
    differing = sum(list(map(int, given)) != own for given, own in zip(token_ids, found, strict=True))
    if not right and differing:
        return f"{name} gives other token ids than the model's tokenizer on {differing} of {len(found)} texts"
    if not right:
        return f"{name} is not the vocabulary of the model's tokenizer"
    if differing:
        _logger.info(
            "%s: a second tokenizer gives the same ids on %.2f%% of %d texts",
            name,
            100 * (1 - differing / len(found)),
            len(found),
        )
    return None
