"""Attacks that see an artifact's answers only: Square on pixels, edits of letters or words on texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks import ATTACKS
from tfapp.attacks.words import WORD_ATTACKS
from tfapp.data.grey_levels import in_grey_levels
from tfapp.evaluation.robustness import Robustness
from tfapp.evaluation.robustness.pixel_budget import BOUNDS
from tfapp.release.answers import FloatArray
from tfapp.release.probe import Probe

Ask: TypeAlias = Callable[[Probe], FloatArray | None]
Make: TypeAlias = Callable[[Any], Probe]
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class BlackBoxFound:
    """What a black box found.

    Attributes:
        attack: Its name.
        num_queries: How often it might ask about a row.
        rows: The rows that it was tried on, int64 ``(tried,)``.
        fooled: Which of them it fooled, ``(tried,)``.
    """

    attack: str
    num_queries: int
    rows: npt.NDArray[np.int64]
    fooled: npt.NDArray[np.bool_]


def black_box_on_pixels(
    ask: Ask,
    make: Make,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    rows: npt.NDArray[np.int64],
    robustness: Robustness,
    *,
    num_queries: int,
) -> BlackBoxFound:
    """Searches with Square; every pixel that the artifact is asked about is a whole grey level.

    Args:
        ask: Answers a probe with probabilities, or None once the artifact has ended.
        make: Turns pixels into a probe.
        pixels: Rows that are right so far, ``(tried, height, width, 3)``.
        labels: Their classes ``(tried,)``.
        rows: Their numbers.
        robustness: Norm, epsilon and seed.
        num_queries: How often it may ask about a row.

    Returns:
        What it found, judged by the artifact's answers to grey levels within the budget.
    """
    norm, epsilon = robustness.norm, robustness.epsilon
    num_classes = len(robustness.classes)

    def answers(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        grey = np.rint(np.clip(images, *BOUNDS)).astype(np.uint8)
        return _scores(ask(make(grey)), len(grey), num_classes)

    def model_fn(images: tf.Tensor) -> tf.Tensor:
        scores = tf.numpy_function(answers, [images], tf.float32)
        return tf.ensure_shape(scores, [None, num_classes])

    # Square goes to the border of its budget, which is a grey level when the budget is one.
    budget = math.floor(255 * epsilon * (1 + 1e-6)) / 255 if norm == "linf" else epsilon
    made = ATTACKS["square"](
        model_fn,
        tf.constant(pixels, tf.float32),
        tf.constant(labels, tf.int32),
        epsilon=budget,
        norm=norm,
        bounds=BOUNDS,
        num_queries=num_queries,
        seed=robustness.seed,
        batch_size=len(rows),
    ).numpy()
    grey = in_grey_levels(made, pixels, epsilon=epsilon, norm=norm)
    fooled = _scores(ask(make(grey)), len(grey), num_classes).argmax(axis=1) != labels
    return BlackBoxFound("square", num_queries, rows, fooled)


def black_box_on_texts(
    ask: Ask,
    make: Make,
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    rows: npt.NDArray[np.int64],
    robustness: Robustness,
    *,
    num_queries: int,
) -> BlackBoxFound:
    """Edits letters, within the share of words that the attack on the model might change.

    Args:
        ask: Answers a probe with probabilities, or None once the artifact has ended.
        make: Turns texts into a probe.
        texts: Rows that are right so far.
        labels: Their classes ``(tried,)``.
        rows: Their numbers.
        robustness: Epsilon and seed.
        num_queries: How often it may ask about a row.

    Returns:
        What it found.
    """

    def predict_fn(asked: Sequence[str]) -> npt.NDArray[np.float64]:
        scores = _scores(ask(make(asked)), len(asked), len(robustness.classes))
        return np.exp(scores.astype(np.float64))

    found = WORD_ATTACKS["character_edits"](
        predict_fn,
        list(texts),
        labels,
        max_changed=robustness.epsilon,
        max_queries=num_queries,
        seed=robustness.seed,
    )
    return BlackBoxFound("character_edits", num_queries, rows, np.asarray(found.success))


def _scores(answers: FloatArray | None, rows: int, num_classes: int) -> npt.NDArray[np.float32]:
    """Logarithms of probabilities; zeros for an artifact that has ended, whose error refuses it anyway."""
    if answers is None:
        return np.zeros((rows, num_classes), np.float32)
    return np.log(np.maximum(np.asarray(answers, np.float64), _LEAST_PROBABILITY)).astype(np.float32)
