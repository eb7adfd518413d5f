"""A second tokenizer, reading only ``vocab.txt``, to see that the file says what the model learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

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
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [[vocabulary[_CLS], *encoding.ids[: max_length - 2], vocabulary[_SEP]] for encoding in encodings]


def check_vocabulary(
    content: bytes,
    texts: Sequence[str],
    token_ids: Sequence[npt.NDArray[np.integer] | Sequence[int]],
    *,
    lowercase: bool,
    max_length: int,
    min_agreement: float,
) -> str | None:
    """Compares the ids that ``vocab.txt`` gives with those that the model was given.

    Args:
        content: ``vocab.txt``.
        texts: Texts to encode.
        token_ids: The model's ids of each, not padded.
        lowercase: Whether to lower-case and strip accents.
        max_length: Most tokens of a text.
        min_agreement: Least share of texts that must get the same ids, from 0 to 1. Two tokenizers may
            differ on rare control characters.

    Returns:
        What is wrong, or None.
    """
    try:
        found = tokenize(content, texts, lowercase=lowercase, max_length=max_length)
    except KeyError as error:
        return f"vocab.txt lacks {error.args[0]}"
    except UnicodeDecodeError:
        return "vocab.txt is not UTF-8"
    same = sum(list(map(int, given)) == own for given, own in zip(token_ids, found, strict=True))
    if same < min_agreement * len(found):
        differing = f"{len(found) - same} of {len(found)} texts"
        return f"vocab.txt gives other token ids than the model's tokenizer on {differing}"
    return None
