"""What an objective is given and what it answers, so that one train step serves all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf


class StepResult(NamedTuple):
    """The answer of an objective for one batch.

    Attributes:
        loss: The loss of this replica's share of the batch, a float32 scalar, to be shown to people.
        logits: Logits of the clean inputs, float32 ``(batch, num_classes)``, for the metrics.
        gradients: One gradient for each of the model's trainable variables, dense or `tf.IndexedSlices`.
        labels: What the logits should have answered, ``(rows of logits, ...)``; None for the batch's labels.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    gradients: list[Any]
    labels: Any = None


class TrainableModel(Protocol):
    """What an objective may ask of the model that it trains."""

    @property
    def trainable_variables(self) -> Sequence[Any]:
        """The variables that get gradients."""

    @property
    def num_classes(self) -> int:
        """Number of the target's classes; logits of other tasks stand behind theirs."""

    @property
    def progress(self) -> tf.Tensor:
        """Share of the phase's steps that are done, a float32 scalar from 0 up to 1."""

    def __call__(self, inputs: Any, *, training: bool) -> tf.Tensor:
        """Logits of a batch, float32 ``(batch, num_classes)``."""

    def supervised_loss(
        self, inputs: Any, labels: Any, logits: Any, sample_weight: Any, *, regularised: bool = True
    ) -> tf.Tensor:
        """The weighted loss to differentiate, a scalar, already divided by the number of replicas.

        The model's own losses, of regularisers for one, are in it unless ``regularised`` is False: a step
        that adds several of these losses up counts them once.
        """

    def unscaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss as shown to people: the replica count taken out again."""


class Objective(Protocol):
    """What a train step minimises."""

    name: str

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch without changing any variable."""
