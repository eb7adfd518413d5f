"""What a phase trains on: token ids, or cached features of the part of the model that is frozen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augmentation, AugmentedViews, TextAugmentation
from tfapp.data.bucketing import Rows
from tfapp.data.digests import digest
from tfapp.data.feature_cache import FeatureShape, cached_features
from tfapp.data.text_rows import TextRows
from tfapp.models import Classifier
from tfapp.models.architecture import architecture_of
from tfapp.training.checkpoints import read_values
from tfapp.training.inference import batch_outputs, input_rows
from tfapp.training.memory_errors import memory_ran_out
from tfapp.training.settings import Phase

_LOG = logging.getLogger("tfapp")
EVALUATION_BATCH = 128
"""Rows a batch wherever nothing is trained."""
_LEARNED = {"train", "source"}


@dataclass(frozen=True)
class PhaseRows:
    """What a phase trains on.

    Attributes:
        rows: Rows by split.
        frozen: What is to be computed below the trained part in every step, or None.
        views: How many variants of each training row there are, and of each of a source task.
        augmented: Whether nothing is left to be done to training rows.
    """

    rows: dict[str, Rows]
    frozen: Callable[..., Any] | None = None
    views: int = 1
    augmented: bool = False


def phase_rows(
    model: Classifier,
    phase: Phase,
    encoded: Mapping[str, Any],
    *,
    lower: keras.Model | None,
    forward: Callable[..., Any] | None,
    precision: str,
    directory: Path,
    limit_megabytes: float,
    pad_to: int,
    augmentation: Augmentation | TextAugmentation | None = None,
    views: int = 1,
    seed: int = 0,
    live: bool = False,
) -> PhaseRows:
    """Gives the rows that a phase trains on, and what is still to be computed below them in every step.

    Args:
        model: The classifier.
        phase: The phase.
        encoded: Encoded features by split.
        lower: The frozen part of the model, from `Classifier.split`; None where all of it is trained.
        forward: A faster function that computes what ``lower`` does, or None.
        precision: ``"float32"`` or ``"mixed_bfloat16"``, which decides how numbers are stored.
        directory: Folder of the caches.
        limit_megabytes: Largest size of all features in MB; beyond it nothing is cached.
        pad_to: Widths of training batches are rounded up to a multiple of this many tokens.
        augmentation: What is done to training images or texts, or None.
        views: Of how many augmented variants of each training row, also of a source task's, features are
            cached.
        seed: Decides these variants.
        live: Whether training rows differ from step to step in a way that no cache can hold.

    Returns:
        The rows, and what is left to do with them.

    Raises:
        OutputError: When a cache cannot be written.
    """
    whole: dict[str, Rows] = {name: input_rows(model, part, pad_to=pad_to) for name, part in encoded.items()}
    online = dict(whole)
    if isinstance(augmentation, TextAugmentation):
        for name in _LEARNED & whole.keys():
            online[name] = TextRows(encoded[name].strings, whole[name].lengths)
    if lower is None:
        return PhaseRows(online)
    frozen = forward or lower
    if live:
        return PhaseRows(online, frozen)
    pooled = phase.train == "head"
    output = "features" if pooled else "hidden"
    by_token = "padding_mask" in lower.output
    item = tuple(lower.output[output].shape[2 if by_token else 1 :])
    bfloat16 = precision == "mixed_bfloat16" and not pooled
    parts, sources = dict(encoded), dict(whole)
    for name in _LEARNED & whole.keys():
        if isinstance(augmentation, TextAugmentation):
            changed = augmentation.encode_views(
                encoded[name].strings, model.preprocessor, views=views, seed=seed
            )
            parts[name], sources[name] = changed, input_rows(model, changed, pad_to=pad_to)
        elif augmentation is not None:
            sources[name] = AugmentedViews(whole[name], augmentation, views=views, seed=seed)
    shapes = {
        name: FeatureShape(int(part.lengths.sum()) if by_token else len(sources[name]), item, bfloat16)
        for name, part in parts.items()
    }
    megabytes = sum(shape.megabytes for shape in shapes.values())
    if megabytes > limit_megabytes:
        _LOG.info(
            "features of %.0f MB are beyond feature_cache_megabytes = %.0f: the frozen part is computed in "
            "every step, which is slower",
            megabytes,
            limit_megabytes,
        )
        return PhaseRows(online, frozen)
    weights = digest(*read_values(lower.weights))
    common = f"{weights}-{architecture_of(lower)}-{precision}-{model.settings}"
    drawn = "" if augmentation is None else f"{augmentation.described()}-{views}-{seed}"
    rows: dict[str, Rows] = {}
    hits = []
    at_once = EVALUATION_BATCH
    for name, part in parts.items():

        def compute(name: str = name) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
            nonlocal at_once
            while True:
                size = max(1, min(at_once, len(sources[name])))
                batches = batch_outputs(
                    frozen, sources[name], batch_size=size, label=f"compute features, {name}"
                )
                try:
                    for indices, outputs in batches:
                        yield indices, outputs[output]
                    return
                except tf.errors.OpError as error:
                    if not memory_ran_out(error) or size == 1:
                        raise
                at_once = -(-size // 2)
                _LOG.warning(
                    "memory ran out while features were computed: %d rows at once from now on", at_once
                )

        rows[name], hit = cached_features(
            directory / f"{phase.title.replace(' ', '-')}-{name}",
            "-".join([common, part.fingerprint(), drawn if name in _LEARNED else ""]),
            shapes[name],
            part.row_splits if by_token else None,
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
    return PhaseRows(rows, views=1 if augmentation is None else views, augmented=True)
