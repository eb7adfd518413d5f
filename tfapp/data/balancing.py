"""Which rows an epoch holds: each once, or every class equally often; and in which of their views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

SAMPLINGS = ("natural", "balanced")
"""How an epoch's rows are drawn: each once, or every class equally often."""

Drawing = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""Gives for an epoch, int64, the rows that it holds and how often each was used before; both ``(rows,)``."""


def draw_each_once(num_rows: int) -> Drawing:
    """Draws every row once an epoch.

    Args:
        num_rows: How many rows there are.

    Returns:
        A function of the epoch, for graphs.
    """

    def draw(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.range(num_rows), tf.repeat(epoch, num_rows)

    return draw


def draw_balanced(labels: npt.NDArray[np.int32], *, seed: int) -> Drawing:
    """Draws every class equally often in an epoch of as many rows as there are.

    The classes take turns without end, and so do the rows of each class, in an order that the seed decides.
    So within an epoch classes differ by one draw at most; over a run, rows of one class do. Rows of small
    classes repeat within an epoch; those of large classes are spread over several.

    Args:
        labels: Class indices, int32 ``(rows,)``; classes without rows are passed over.
        seed: Decides the order within classes, at least 0.

    Returns:
        A function of the epoch, for graphs; it remembers nothing.

    Reference:
        Kang et al. 2020, Decoupling Representation and Classifier for Long-Tailed Recognition,
        arXiv:1910.09217 (class-balanced sampling).
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = tf.constant(shuffled[np.argsort(labels[shuffled], kind="stable")], tf.int32)
    counts = np.bincount(labels)
    counts = tf.constant(counts[counts > 0], tf.int64)
    starts = tf.cumsum(counts, exclusive=True)

    def draw(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turn = tf.cast(epoch, tf.int64) * len(labels) + tf.range(len(labels), dtype=tf.int64)
        which, number = turn % len(counts), turn // len(counts)
        count = tf.gather(counts, which)
        return tf.gather(by_class, tf.gather(starts, which) + number % count), number // count

    return draw


def draw_views(draw: Drawing, num_rows: int, *, views: int, seed: int) -> Drawing:
    """Draws rows of which there are several views, all rows of the first before all of the second.

    Args:
        draw: Draws the rows.
        num_rows: How many rows each view has.
        views: How many views there are.
        seed: Decides in which view each row begins; then one comes after another.

    Returns:
        A function of the epoch, for graphs.
    """
    first = np.random.default_rng(seed).integers(0, views, num_rows)

    def draw_view(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn, turns = draw(epoch)
        view = (tf.gather(tf.constant(first), drawn) + turns) % views
        return drawn + num_rows * tf.cast(view, tf.int32), turns

    return draw_view
