"""What an objective is given and what it answers, so that one train step serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Perturbable(NamedTuple):
    """Where a batch can be perturbed: pixels, token embeddings, or features of what is frozen.

    Attributes:
        values: What is perturbed, float32 ``(batch, ...)``.
        mask: Which positions of ``values`` count, ``(batch, sequence)``; None where all do.
        bounds: Least and greatest value of a pixel; None for what has no bounds.
        logits: ``(values, training) -> logits`` of the same batch with other values, float32.
    """

    values: tf.Tensor
    mask: tf.Tensor | None
    bounds: tuple[float, float] | None
    logits: Callable[..., tf.Tensor]


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

    def hidden_states(self, inputs: Any, *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Logits as by a call, and the hidden states ``(batch, sequence, hidden)`` around all blocks."""

    def infer(self, inputs: Any) -> tf.Tensor:
        """Logits of a batch in inference mode, float32 ``(batch, num_classes)``, by the fastest pass."""

    def perturbable(self, inputs: Any) -> Perturbable:
        """The place where a batch is perturbed: what enters the part of the model that is trained."""

    def keeping_statistics(self, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns; the moving averages of batch normalisation are afterwards as before."""

    @property
    def trains_statistics(self) -> bool:
        """Whether a pass in training mode changes moving averages."""

    def step_seed(self) -> tf.Tensor:
        """A seed of this step and replica, int32 ``(2,)``."""

    def scaled_mean(self, values: Any, sample_weight: Any) -> tf.Tensor:
        """The weighted mean of ``values`` ``(batch,)``, divided like `supervised_loss` by the replicas."""

    def apply_gradients(self, gradients: list[Any]) -> None:
        """Takes a step of the optimizer, for objectives that take several a batch."""

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
    """What a train step minimises: the mean loss of rows that are computed each by itself.

    One that minimises a sum of several means, each over its own rows, says which by a method ``groups(model,
    labels)`` that gives int32 ``(batch,)`` from 0; batches that are computed in parts are weighed by it.

    Attributes:
        name: Its key in `OBJECTIVES`.
    """

    name: str

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch.

        The step that follows applies the gradients. An objective that takes further steps of its own, through
        `TrainableModel.apply_gradients`, counts all of them in an attribute ``updates``; beside that, only
        moving averages and random states change.
        """
