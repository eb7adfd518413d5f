"""One batch computed in parts, one after another, whose gradients add up to those of the whole."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import keras
import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.objectives import Objective, StepResult, TrainableModel


class Divisible(TrainableModel, Protocol):
    """A model whose steps can be computed in parts."""

    def part(self, number: tf.Tensor) -> AbstractContextManager[None]:
        """Lets `step_seed` give each part of a batch its own seed within the block."""


def why_undivided(objective: Objective, network: keras.Model | None = None) -> str | None:
    """Tells why batches cannot be computed in parts; None where they can.

    Args:
        objective: What a step minimises.
        network: The model in training; None where it is not known yet.
    """
    if int(getattr(objective, "updates", 1)) > 1:
        return (
            f"objective {objective.name!r} takes several optimizer steps on each batch, every one of which "
            "needs the gradients of all rows before the next begins"
        )
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    if (
        several
        and network is not None
        and any(
            isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized and layer.trainable
            for layer in network._flatten_layers()
        )
    ):
        return "batch normalisation that several replicas synchronise needs all of them at once"
    return None


def check_divisible(count: int, objective: Objective, network: keras.Model | None = None) -> None:
    """Refuses to divide batches that cannot be computed in parts.

    Args:
        count: Number of parts, 1 or more.
        objective: What a step minimises.
        network: The model in training; None where it is not known yet.

    Raises:
        ConfigError: When there shall be several parts and there cannot be.
    """
    reason = None if count == 1 else why_undivided(objective, network)
    if reason is not None:
        raise ConfigError(f"num_microbatches must be 1: {reason}. Lower batch_size instead.")


def step_in_parts(
    model: Divisible, objective: Objective, inputs: Any, labels: Any, sample_weight: Any, *, count: int
) -> StepResult:
    """Computes an objective's step in parts, of which one at a time is in memory.

    Loss and gradients are those of the whole batch, up to rounding. What sees more than a row does not stay
    the same: batch normalisation in training mode takes its statistics from each part. Part ``k`` of ``n``
    has the rows ``k, k + n, k + 2n, ...``, so parts differ by a row at most.

    Args:
        model: The model in training.
        objective: What the step minimises; one that takes several optimizer steps a batch cannot be divided.
        inputs: The batch's inputs, each ``(batch, ...)``.
        labels: As in `Objective.step`.
        sample_weight: float32 ``(batch,)`` or None.
        count: Number of parts, 2 or more; as many as there are rows where these are fewer.

    Returns:
        The loss, the gradients, and the logits with their labels, in the order of the parts.
    """
    rows = tf.shape(labels)[0]
    parts = tf.maximum(1, tf.minimum(count, rows))
    groups = objective.groups(model, labels) if hasattr(objective, "groups") else None
    batch = (inputs, labels) if sample_weight is None else (inputs, labels, sample_weight)

    def compute(number: Any) -> tuple[tf.Tensor, StepResult]:
        """One part: its share of the batch, and what the objective says of it."""
        places = tf.range(number, rows, parts)
        own, own_labels, *weight = tf.nest.map_structure(lambda values: tf.gather(values, places), batch)
        size = tf.shape(own_labels)[0]
        share = tf.where(rows > 0, tf.cast(size, tf.float32) / tf.cast(tf.maximum(rows, 1), tf.float32), 1.0)
        weights = weight[0] if weight else None
        if groups is not None:
            evened = _evened(groups, tf.gather(groups, places)) / share
            weights = evened if weights is None else evened * tf.cast(weights, tf.float32)
        with model.part(number):
            result = objective.step(model, own, own_labels, weights)
        return share, result._replace(labels=own_labels if result.labels is None else result.labels)

    share, first = compute(tf.constant(0))
    dense = {
        place: tf.convert_to_tensor(gradient) * share
        for place, gradient in enumerate(first.gradients)
        if gradient is not None and not isinstance(gradient, tf.IndexedSlices)
    }
    sparse = {
        place: (_begin(gradient.values * share, parts), _begin(gradient.indices, parts))
        for place, gradient in enumerate(first.gradients)
        if isinstance(gradient, tf.IndexedSlices)
    }
    answers = _begin(first.logits, parts), _begin(first.labels, parts)

    def add(number: Any, loss: Any, dense: Any, sparse: Any, answers: Any) -> Any:
        share, result = compute(number)
        gradients = result.gradients
        dense = {place: total + gradients[place] * share for place, total in dense.items()}
        sparse = {
            place: (
                values.write(number, gradients[place].values * share),
                indices.write(number, gradients[place].indices),
            )
            for place, (values, indices) in sparse.items()
        }
        answers = answers[0].write(number, result.logits), answers[1].write(number, result.labels)
        return _after(number, dense, sparse), loss + result.loss * share, dense, sparse, answers

    _, loss, dense, sparse, answers = tf.while_loop(
        lambda number, *_: number < parts,
        add,
        (_after(tf.constant(0), dense, sparse), first.loss * share, dense, sparse, answers),
        parallel_iterations=1,
    )
    gradients = [
        dense.get(place)
        if place not in sparse
        else tf.IndexedSlices(sparse[place][0].concat(), sparse[place][1].concat(), gradient.dense_shape)
        for place, gradient in enumerate(first.gradients)
    ]
    return StepResult(loss, answers[0].concat(), gradients, answers[1].concat())


def _evened(groups: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    """How much of its group's rows the part of each of its rows has, float32 ``(rows of the part,)``."""
    length = tf.reduce_max(groups) + 1
    counts = tf.math.bincount(own, minlength=length) / tf.math.bincount(groups, minlength=length)
    return tf.gather(tf.cast(counts, tf.float32), own)


def _begin(values: tf.Tensor, parts: tf.Tensor) -> tf.TensorArray:
    """Begins an array of tensors whose first dimensions differ."""
    shape = [None, *values.shape[1:]]
    array = tf.TensorArray(values.dtype, size=parts, infer_shape=False, element_shape=shape)
    return array.write(0, values)


def _after(number: Any, dense: dict[int, tf.Tensor], sparse: dict[int, Any]) -> tf.Tensor:
    """The number of the next part, known once the gradients so far are there: before, it cannot begin."""
    arrays = [array.flow for pair in sparse.values() for array in pair]
    with tf.control_dependencies([*dense.values(), *arrays]):
        return tf.identity(number + 1)
