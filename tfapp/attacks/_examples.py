"""What the long attacks know of their examples before they begin: which still stand, and the runners-up."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tfapp.attacks._ball import as_number
from tfapp.attacks._checks import (
    ModelFn,
    Seed,
    as_images,
    as_labels,
    as_seed,
    check_classes,
    check_rows,
)
from tfapp.attacks._compiled import as_compiled
from tfapp.attacks._losses import class_indices, is_wrong, logits_of
from tfapp.attacks._search import Search, Tensors, run_rounds
from tfapp.errors import DataError

FEWEST_CLASSES = {"dlr": 3, "dlr_targeted": 4}
"""With how many classes each form of DLR is defined; cross-entropy takes its place where there are fewer."""

_logger = logging.getLogger("tfapp.attacks")


class Examples(NamedTuple):
    """Examples in the form that searches take.

    Attributes:
        model_fn: The model, compiled when called eagerly.
        given: ``images``, ``labels`` int32 ``(batch,)``, ``answer``, which are the images, and ``done``,
            which is True for those that the model gets wrong as they are.
        radius: The budget in the images' own unit, a scalar.
        seed: int32 ``(2,)``.
        logits: Logits of the clean images, ``(batch, num_classes)``.
    """

    model_fn: ModelFn
    given: Tensors
    radius: tf.Tensor
    seed: tf.Tensor
    logits: tf.Tensor

    @property
    def num_classes(self) -> int:
        """How many classes the model knows."""
        return int(self.logits.shape[1])

    def attacked_by(self, rounds: Iterable[tuple[Search, Tensors]], *, batch_size: int) -> tf.Tensor:
        """Runs searches on the examples, as `run_rounds` does."""
        return run_rounds(
            self.model_fn,
            rounds,
            self.given,
            radius=self.radius,
            seed=self.seed,
            batch_size=batch_size,
        )


def make_examples(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: Any,
    bounds: tuple[float, float],
    seed: Seed,
    batch_size: int,
) -> Examples:
    """Checks the examples and asks the model about the clean images.

    Args:
        model_fn: Inputs to logits.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices or distributions; of a distribution the likeliest class is attacked.
        epsilon: Budget as a fraction of the range of ``bounds``: a number or a scalar tensor.
        bounds: Lowest and highest value of an input.
        seed: A whole number or an int32 tensor ``(2,)``.
        batch_size: How many images the model sees at a time when called eagerly.

    Raises:
        DataError: When images or labels cannot be used.
    """
    pixels, given_labels = as_images(images, bounds), as_labels(labels)
    check_rows(pixels, given_labels)
    truth = class_indices(given_labels)
    if tf.executing_eagerly():
        model_fn = as_compiled(model_fn)
    logits = batched_logits(model_fn, pixels, batch_size)
    if logits.shape[1] is None:
        raise DataError("the number of the model's classes is unknown: set the shape of its logits.")
    if tf.executing_eagerly():
        check_classes(given_labels, int(logits.shape[1]))
    radius = as_number(epsilon * (bounds[1] - bounds[0]), pixels.dtype)
    given = {"images": pixels, "labels": truth, "answer": pixels, "done": is_wrong(logits, truth)}
    return Examples(model_fn, given, radius, as_seed(seed), logits)


def batched_logits(model_fn: ModelFn, inputs: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Asks a model about any number of inputs: batch by batch when called eagerly, else all at once.

    Args:
        model_fn: Inputs to logits.
        inputs: ``(count, ...)``.
        batch_size: How many at a time.

    Returns:
        ``(count, num_classes)``.
    """
    if not tf.executing_eagerly():
        return logits_of(model_fn, inputs)
    firsts = range(0, max(len(inputs), 1), batch_size)
    return tf.concat([logits_of(model_fn, inputs[first : first + batch_size]) for first in firsts], axis=0)


def runners_up(examples: Examples, count: int) -> list[tf.Tensor]:
    """Gives the likeliest wrong classes, as many as there are up to a count, each int32 ``(batch,)``."""
    truth = tf.one_hot(examples.given["labels"], examples.num_classes, on_value=True, off_value=False)
    others = tf.where(truth, examples.logits.dtype.min, examples.logits)
    ranked = tf.math.top_k(others, min(count, examples.num_classes - 1)).indices
    return [ranked[:, place] for place in range(ranked.shape[1])]


def loss_for(loss: str, num_classes: int, fewest: int) -> str:
    """Falls back from DLR to cross-entropy, and says so, where there are fewer classes than DLR compares.

    Args:
        loss: A loss's name.
        num_classes: Of the model.
        fewest: With how many classes DLR is defined.
    """
    if loss != "dlr" or num_classes >= fewest:
        return loss
    _logger.warning(
        "the DLR loss compares %d classes and the model has %d: cross-entropy takes its place",
        fewest,
        num_classes,
    )
    return "cross_entropy"
