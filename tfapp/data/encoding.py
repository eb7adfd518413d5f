"""Token ids of a data set's texts, and where they are cut or split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from tfapp.data.encoded import EncodedTexts
from tfapp.data.lengths import LengthReport, length_report
from tfapp.data.tokenizers import DEFAULT_MAX_LENGTH, Tokenizer
from tfapp.errors import ConfigError

_LOG = logging.getLogger("tfapp")
_UNLIMITED = 2**30
_MOST_CUT = 1.0
"""Percent of the training texts that may be longer than a ``max_length`` that the data decides."""


def encode_texts(
    tokenizer: Tokenizer,
    splits: Mapping[str, Sequence[str]],
    *,
    max_length: int | None,
    positions: int | None,
) -> tuple[dict[str, EncodedTexts], LengthReport]:
    """Encodes texts and sets the tokenizer's ``max_length``.

    Args:
        tokenizer: The tokenizer.
        splits: Texts by the name of their split, ``"train"`` among them.
        max_length: Most tokens of a row; None for the 99th percentile of the training texts, at most 256 and
            at most ``positions``.
        positions: Most tokens that the backbone has positions for; None where there is no limit.

    Returns:
        The ids of each split, cut or split as the tokenizer says, and the lengths of the training texts.

    Raises:
        ConfigError: When ``max_length`` is more than the backbone has positions for.
    """
    limit = positions or _UNLIMITED
    if max_length is not None and max_length > limit:
        raise ConfigError(f"max_length = {max_length}: the backbone has positions for {limit} tokens only.")
    whole = {name: tokenizer.encode(texts, max_length=_UNLIMITED) for name, texts in splits.items()}
    lengths = whole["train"].full_lengths
    longest = int(np.percentile(lengths, 100.0 - _MOST_CUT, method="higher"))
    tokenizer.max_length = max_length or max(3, min(longest, DEFAULT_MAX_LENGTH, limit))
    report = length_report(lengths, tokenizer.max_length, long_texts=tokenizer.long_texts, positions=limit)
    for line in report.lines():
        _LOG.info("%s", line)
    shortened = {
        name: encoded.shorten(tokenizer.max_length, tokenizer.long_texts) for name, encoded in whole.items()
    }
    return shortened, report
