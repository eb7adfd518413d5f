"""The one tokenizer of training, serving and TFLite, in each of the ways in which encoders split texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfapp.data.tokenizers._tokenizer import DEFAULT_MAX_LENGTH, LONG_TEXTS, Tokenizer
from tfapp.data.tokenizers.sentencepiece import SentencePieceTokenizer
from tfapp.data.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer

__all__ = [
    "DEFAULT_MAX_LENGTH",
    "LONG_TEXTS",
    "SPECIAL_TOKENS",
    "TOKENIZERS",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "read_tokenizer",
    "tokenizer_family",
]

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "wordpiece": WordPieceTokenizer,
}


def tokenizer_family(settings: Mapping[str, Any]) -> type[Tokenizer]:
    """Finds the class of a tokenizer.

    Args:
        settings: Its `Tokenizer.settings`; files of earlier versions name no family, and mean WordPiece.

    Returns:
        The class.
    """
    return TOKENIZERS[settings.get("tokenizer", WordPieceTokenizer.kind)]


def read_tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    """Builds a tokenizer of any family.

    Args:
        config: What its ``get_config`` gave.

    Returns:
        An equal tokenizer.
    """
    return tokenizer_family(config).from_config(config)
