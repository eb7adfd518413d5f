"""What a phase trains on: token ids, or cached features of the part of the model that is frozen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfapp.data.bucketing import Rows
from tfapp.data.encoded import EncodedTexts
from tfapp.data.feature_cache import FeatureShape, cached_features
from tfapp.models import Classifier
from tfapp.training.checkpoints import digest, read_values
from tfapp.training.inference import batch_outputs, token_rows
from tfapp.training.settings import Phase

_LOG = logging.getLogger("tfapp")
EVALUATION_BATCH = 128
"""Rows a batch wherever nothing is trained."""


def phase_rows(
    model: Classifier,
    phase: Phase,
    encoded: Mapping[str, EncodedTexts],
    *,
    lower: keras.Model | None,
    forward: Callable[..., Any] | None,
    precision: str,
    directory: Path,
    limit_megabytes: float,
    pad_to: int,
) -> tuple[dict[str, Rows], Callable[..., Any] | None]:
    """Gives the rows that a phase trains on, and what is still to be computed below them in every step.

    Args:
        model: The classifier.
        phase: The phase.
        encoded: Token ids by split.
        lower: The frozen part of the model, from `Classifier.split`; None where all of it is trained.
        forward: A faster function that computes what ``lower`` does, or None.
        precision: ``"float32"`` or ``"mixed_bfloat16"``, which decides how numbers are stored.
        directory: Folder of the caches.
        limit_megabytes: Largest size of all features in MB; beyond it nothing is cached.
        pad_to: Widths of training batches are rounded up to a multiple of this many tokens.

    Returns:
        Rows by split, and the frozen part where it is not cached, else None.

    Raises:
        OutputError: When a cache cannot be written.
    """
    tokens: dict[str, Rows] = {name: token_rows(model, ids, pad_to=pad_to) for name, ids in encoded.items()}
    if lower is None:
        return tokens, None
    frozen = forward or lower
    pooled = phase.train == "head"
    output = "features" if pooled else "hidden"
    width = int(lower.output[output].shape[-1])
    bfloat16 = precision == "mixed_bfloat16" and not pooled
    shapes = {
        name: FeatureShape(len(ids), len(ids) if pooled else len(ids.values), width, bfloat16)
        for name, ids in encoded.items()
    }
    megabytes = sum(shape.megabytes for shape in shapes.values())
    if megabytes > limit_megabytes:
        _LOG.info(
            "features of %.0f MB are beyond feature_cache_megabytes = %.0f: the frozen part is computed in "
            "every step, which is slower",
            megabytes,
            limit_megabytes,
        )
        return tokens, frozen
    weights = digest(*read_values(lower.weights))
    rows: dict[str, Rows] = {}
    hits = []
    for name, ids in encoded.items():

        def compute(name: str = name) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
            batches = batch_outputs(
                frozen, tokens[name], batch_size=EVALUATION_BATCH, label=f"compute features, {name}"
            )
            for indices, outputs in batches:
                yield indices, outputs[output]

        rows[name], hit = cached_features(
            directory / f"{phase.title.replace(' ', '-')}-{name}",
            f"{weights}-{digest(ids.values, ids.row_splits)}-{precision}-{model.pooling}",
            shapes[name],
            None if pooled else ids.row_splits,
            compute,
            name=output,
            pad_to=pad_to,
        )
        hits.append(hit)
    _LOG.info(
        "features below '%s': %.1f MB on disk, %s",
        phase.title,
        megabytes,
        "reused" if all(hits) else "computed",
    )
    return rows, None
