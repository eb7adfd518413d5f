"""A second tokenizer, reading only ``vocab.txt``, to see that the file says what the model learned."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

_logger = logging.getLogger("tfapp")
_PAD, _UNKNOWN, _CLS, _SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def tokenize(content: bytes, texts: Sequence[str], *, lowercase: bool, max_length: int) -> list[list[int]]:
    """Encodes texts as a phone would that has only the vocabulary file.

    Args:
        content: ``vocab.txt``, one piece a line.
        texts: The texts.
        lowercase: Whether to lower-case and strip accents.
        max_length: Most tokens of a text, [CLS] and [SEP] included.

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
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
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
    """Compares ``vocab.txt`` with the model's vocabulary, and the ids that it gives with the model's.

    Other ids are no reason against the right file: tokenizers differ on rare characters and very long words.
    How many texts get the same is logged, for whoever tokenizes on a device.

    Args:
        content: ``vocab.txt``.
        texts: Texts to encode.
        token_ids: The model's ids of each, not padded.
        settings: The model's ``lowercase``, ``max_length`` and ``vocabulary_sha256``, the checksum of its
            own vocabulary file in hexadecimal.

    Returns:
        What is wrong with the file, or None.
    """
    right = hashlib.sha256(content).hexdigest() == settings["vocabulary_sha256"]
    try:
        found = tokenize(
            content,
            texts,
            lowercase=bool(settings["lowercase"]),
            max_length=int(settings["max_length"]),
        )
    except KeyError as error:
        return f"vocab.txt lacks {error.args[0]}"
    except UnicodeDecodeError:
        return "vocab.txt is not UTF-8"
    differing = sum(list(map(int, given)) != own for given, own in zip(token_ids, found, strict=True))
    if not right and differing:
        return (
            f"vocab.txt gives other token ids than the model's tokenizer on {differing} of {len(found)} texts"
        )
    if not right:
        return "vocab.txt is not the vocabulary of the model's tokenizer"
    if differing:
        _logger.info(
            "vocab.txt: a second tokenizer gives the same ids on %.2f%% of %d texts",
            100 * (1 - differing / len(found)),
            len(found),
        )
    return None
