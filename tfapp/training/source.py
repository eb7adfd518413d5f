"""A source task beside the target: what it is, and how it joins a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.errors import ConfigError, DataError
from tfapp.models import Classifier
from tfapp.models.heads import make_head
from tfapp.objectives import Objective, make_objective
from tfapp.objectives.joint import Joint
from tfapp.objectives.standard import Standard

_LOG = logging.getLogger("tfapp")


@dataclass(frozen=True)
class SourceTask:
    """A second data set whose loss is minimised beside the target's, through a head of its own.

    Attributes:
        data: `TextData` or `ImageData`, as the target's; its classes may be others. ``train`` is learned.
        alpha: Weight of the source's loss, 0 or more; several are tried, and the one with the best score on
            the target's validation rows is kept.
        alpha_schedule: ``"constant"``, or ``"linear"`` or ``"cosine"`` from ``alpha`` to 0 over each phase.
        source_share: Rows of the source in a batch for each row of the target, more than 0.

    Raises:
        ConfigError: When a value is unknown or out of range.
    """

    data: Any
    alpha: float | Sequence[float] = 1.0
    alpha_schedule: Literal["constant", "linear", "cosine"] = "constant"
    source_share: float = 1.0

    def __post_init__(self) -> None:
        if not self.alphas or len(set(self.alphas)) < len(self.alphas):
            raise ConfigError(f"alpha = {self.alpha}: give a number, or several that all differ.")
        for alpha in self.alphas:
            Joint(alpha, self.alpha_schedule)
        if not 0.0 < self.source_share < float("inf"):
            raise ConfigError(f"source_share = {self.source_share}: it must be more than 0.")

    @property
    def alphas(self) -> tuple[float, ...]:
        """The weights to try, the smallest first."""
        given = self.alpha if isinstance(self.alpha, Sequence) else (self.alpha,)
        return tuple(sorted(float(alpha) for alpha in given))

    @property
    def searches(self) -> bool:
        """Whether there are several weights to choose from."""
        return len(self.alphas) > 1


@dataclass(frozen=True)
class JoinedSource:
    """A source task that has joined a run.

    Attributes:
        head: From features to the logits of its classes.
        classes: Their names.
        encoded: Its encoded features.
        labels: A label for each encoded row, int32 ``(rows,)``, offset by the number of target classes.
        share: Rows of the source in a batch for each row of the target.
        fingerprint: Fingerprint of its data.
    """

    head: keras.layers.Layer
    classes: tuple[str, ...]
    encoded: Any
    labels: npt.NDArray[np.int32]
    share: float
    fingerprint: str

    def model_on(self, model: Classifier) -> Classifier:
        """Returns the classifier of the source's classes, which shares the backbone of ``model``."""
        twin = model.with_classes(self.classes)
        twin.head_layers[1].set_weights(self.head.get_weights())
        return twin


def joint_objective(source: SourceTask | None, objective: str | Objective) -> Objective:
    """Tells what a step minimises where there may be a source task.

    Args:
        source: The source task, or None.
        objective: What was asked for: a key of `tfapp.objectives.OBJECTIVES`, or an objective.

    Returns:
        The joint objective with the smallest alpha; ``objective`` where there is no source.

    Raises:
        ConfigError: When the two do not go together.
    """
    asked = make_objective(objective)
    if source is None:
        if asked.name == Joint.name:
            raise ConfigError("objective 'joint' learns two tasks: give the second one with source=.")
        return asked
    if type(asked) is not Standard and not (type(asked) is Joint and isinstance(objective, str)):
        given = repr(objective) if isinstance(objective, str) else f"{type(objective).__name__}(...)"
        raise ConfigError(
            f"objective = {given} cannot be minimised beside a source task: with source=, the objective is "
            "'joint' with the alpha and alpha_schedule of the SourceTask. Leave one of the two out."
        )
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        # A replica gets a stretch of the batch, which may hold rows of one task only.
        raise ConfigError("a source task is learned on one device; leave the distribution strategy out.")
    return Joint(source.alphas[0], source.alpha_schedule)


def join_source(model: Classifier, data: Any, source: SourceTask, *, seed: int) -> JoinedSource:
    """Encodes a source task and makes its head.

    Source rows that also stand among the target's validation or test rows are left out: learning them would
    flatter the target's scores.

    Args:
        model: The classifier in training, which knows its lengths already.
        data: The target's data.
        source: The source task.
        seed: Decides the head's initial weights.

    Returns:
        What a run needs.

    Raises:
        ConfigError: When the source's rows are of another kind than the target's.
        DataError: When no row is left.
    """
    if source.data.kind != data.kind:
        raise ConfigError(f"the source has {source.data.kind}s and the target {data.kind}s.")
    split = source.data.train
    held_out = {*_identities(data.validation), *_identities(data.test)}
    kept = [row for row, identity in enumerate(_identities(split)) if identity not in held_out]
    if len(kept) < len(split):
        _LOG.info(
            "%d rows of the source are left out: they are among the target's validation or test rows",
            len(split) - len(kept),
        )
    if not kept:
        raise DataError("the source has no training rows that are not held out by the target.")
    features, labels = split.features, split.labels
    if len(kept) < len(split):
        labels = labels[kept]
        features = features.take(kept) if hasattr(features, "take") else [features[row] for row in kept]
    digests = getattr(split, "digests", None)
    known = {} if digests is None else {"digests": [digests[row] for row in kept]}
    encoded = model.preprocessor.encode(features, **known)
    labels = labels if encoded.texts is None else labels[encoded.texts]
    _LOG.info("source: %d rows, %d classes", len(kept), len(source.data.classes))
    return JoinedSource(
        head=_source_head(model, len(source.data.classes), seed=seed),
        classes=tuple(source.data.classes),
        encoded=encoded,
        labels=(labels + model.num_classes).astype(np.int32),
        share=source.source_share,
        fingerprint=source.data.fingerprint,
    )


def _identities(split: Any) -> Sequence[Any]:
    """What tells rows apart: the checksums of images, or the texts themselves."""
    identities: Sequence[Any] = getattr(split, "digests", split.features)
    return identities


def _source_head(model: Classifier, num_classes: int, *, seed: int) -> keras.layers.Layer:
    # The next seed, so that two heads of one size do not begin alike.
    head = make_head(num_classes, 0.0, seed=seed + 1, name="source_logits")[1]
    head.build((None, *model.features.shape[1:]))
    return head
