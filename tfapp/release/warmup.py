"""Warm-up records: requests that TF Serving answers before a version is ready, so that no user waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.release.golden import INPUTS
from tfapp.wire.messages import DEFAULT_SIGNATURE, PredictionLog
from tfapp.wire.tensors import string_tensor

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TF Serving looks for them in a version folder."""

WARMUPS = ("drawn", "held_out", "none")
"""What they are made of: inputs drawn as long as held-out ones are, held-out ones themselves, or nothing."""

# TF Serving refuses more than 1,000 of them; each is a call that delays readiness.
_COUNT = {"text": 32, "image_bytes": 16}


def check_warmup(kind: str) -> str:
    """Refuses what is no kind of warm-up records.

    Args:
        kind: What the user gave.

    Returns:
        The same.

    Raises:
        ConfigError: When it is none of `WARMUPS`.
    """
    if kind not in WARMUPS:
        raise ConfigError(f"warmup = {kind!r}; {nearest(str(kind), WARMUPS)}")
    return kind


def write_warmup(preprocessor: Any, held_out: Sequence[Any], directory: Path, *, name: str, kind: str) -> int:
    """Writes warm-up records into a version folder.

    Each asks ``serving_default`` for one text or image: a server whose batches are smaller than a request
    of the records would not load the version at all.

    Args:
        preprocessor: The model's preprocessor.
        held_out: Texts or image files that the model was measured on. Of texts, some are taken from the
            shortest to the longest; of images some throughout, since looking at all means to read them.
        directory: The version folder in the making.
        name: The model's name.
        kind: One of `WARMUPS`. With ``"drawn"``, nothing of the held-out rows but the number of tokens of a
            text, or the format and size of an image, is found in the records.

    Returns:
        The number of records.

    Raises:
        DataError: When an image cannot be read any more.
    """
    if check_warmup(kind) == "none":
        return 0
    feature = preprocessor.feature_name
    chosen = _spread(held_out, _COUNT[feature], by_length=feature == "text")
    if kind == "drawn":
        values = INPUTS[feature].draw_like(preprocessor, chosen)
    else:
        values = [value.encode("utf-8") if isinstance(value, str) else value for value in chosen]
    path = directory / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for value in values:
            record = PredictionLog()
            request = record.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, DEFAULT_SIGNATURE
            request.inputs[feature].CopyFrom(string_tensor([value]))
            writer.write(record.SerializeToString())
    return len(values)


def _spread(rows: Sequence[Any], count: int, *, by_length: bool) -> list[Any]:
    """Takes rows at even distances."""
    order = np.argsort([len(row) for row in rows], kind="stable") if by_length else np.arange(len(rows))
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [rows[int(row)] for row in order[places]]
