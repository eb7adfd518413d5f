"""Batches that hold rows of two tasks: those of the target first, those of the source behind them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augment
from tfapp.data.balancing import draw_each_once, draw_views
from tfapp.data.bucketing import POOL_BATCHES, Rows


class MixedRows:
    """Rows of a target task and, numbered after them, rows of a source task.

    Args:
        target: Rows of the target.
        source: Rows of the source, with the same inputs.
    """

    def __init__(self, target: Rows, source: Rows) -> None:
        self.lengths: npt.NDArray[np.int32] = np.concatenate([target.lengths, source.lengths])
        self.num_target = len(target)
        self._target, self._source = target, source
        self._fillers = {"token_ids": getattr(target, "pad_id", 0)}

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers a batch that has rows of both tasks, all padded to the longest of them.

        Args:
            indices: int32 ``(batch,)``; those of the source are ``num_target`` and more.

        Returns:
            The inputs ``(batch, ...)``: the target's rows first, each task's in the order of ``indices``.
        """
        of_source = indices >= self.num_target
        target = self._target.gather(tf.boolean_mask(indices, ~of_source))
        source = self._source.gather(tf.boolean_mask(indices, of_source) - self.num_target)
        return {
            name: _stacked(values, source[name], self._fillers.get(name, 0))
            for name, values in target.items()
        }


def _stacked(above: tf.Tensor, below: tf.Tensor, filler: int) -> tf.Tensor:
    """Stacks two batches, both filled up to the greater width where widths differ from batch to batch."""
    if above.shape[1:].is_fully_defined() and above.shape[1:] == below.shape[1:]:
        return tf.concat([above, below], axis=0)
    width = tf.maximum(tf.shape(above)[1], tf.shape(below)[1])

    def widened(values: tf.Tensor) -> tf.Tensor:
        more = [[0, 0], [0, width - tf.shape(values)[1]], *[[0, 0]] * (values.shape.rank - 2)]
        return tf.pad(values, more, constant_values=tf.cast(filler, values.dtype))

    return tf.concat([widened(above), widened(below)], axis=0)


class SourceRows:
    """The source's part of every batch: rows and labels behind those of the target.

    The source goes through shuffled epochs of its own, which go on from one epoch of the target to the next,
    so that all its rows are seen equally often. Batches of long texts of both tasks are put together, which
    keeps padding low.

    Args:
        rows: The rows of both tasks.
        labels: Labels of the source's rows, int32 ``(rows of the source / views,)``, already told apart from
            the target's by an offset.
        batch_size: Rows of the source in every batch, 1 or more.
        seed: Decides the order; at least 0 and less than 2^63 - 1.
        views: How many variants of each labelled row there are, all rows of the first before all of the
            second; the source's epochs take turns.
    """

    def __init__(
        self,
        rows: MixedRows,
        labels: npt.NDArray[np.int32],
        *,
        batch_size: int,
        seed: int,
        views: int = 1,
    ) -> None:
        self.labels = np.tile(labels, views)
        self._rows, self._batch_size, self._seed = rows, batch_size, seed
        self._lengths = tf.constant(rows.lengths)
        self._num_rows = len(labels)
        self._draw = draw_each_once(len(labels))
        if views > 1:
            self._draw = draw_views(self._draw, len(labels), views=views, seed=seed)

    def extend(self, batches: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Puts the source's rows behind the target's.

        Args:
            batches: The target's batches of an epoch, int32 ``(batches, rows)``, with -1 for no row; every
                epoch has the same number of them.
            epoch: Number of the epoch, an integer scalar.

        Returns:
            int32 ``(batches, rows + batch_size)``; numbers of the source's rows follow the target's.
        """
        lengths = tf.where(batches < 0, 0, tf.gather(self._lengths, tf.maximum(batches, 0)))
        ranks = tf.argsort(tf.argsort(tf.reduce_max(lengths, axis=1), stable=True), stable=True)
        source = self._drawn(tf.shape(batches, out_type=tf.int64)[0], tf.cast(epoch, tf.int64))
        return tf.concat([batches, tf.gather(source, ranks)], axis=1)

    def _drawn(self, batches: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The source's batches of an epoch of the target, those of short texts first."""
        rows = self._num_rows
        needed = batches * self._batch_size
        start = epoch * needed
        first, last = start // rows, (start + needed - 1) // rows
        orders = tf.map_fn(
            lambda number: tf.random.experimental.stateless_shuffle(
                self._rows.num_target + self._draw(number)[0],
                seed=tf.stack([tf.constant(self._seed, tf.int64), number]),
            ),
            tf.range(first, last + 1),
            fn_output_signature=tf.int32,
        )
        order = tf.reshape(orders, [-1])[start - first * rows :][:needed]
        # As in `epoch_plan`, rows are sorted by length only among those of some batches.
        pool = tf.range(needed) // (self._batch_size * POOL_BATCHES)
        key = pool * (tf.int32.max + 1) + tf.cast(tf.gather(self._lengths, order), tf.int64)
        drawn = tf.reshape(tf.gather(order, tf.argsort(key, stable=True)), [-1, self._batch_size])
        widths = tf.reduce_max(tf.gather(self._lengths, drawn), axis=1)
        return tf.gather(drawn, tf.argsort(widths, stable=True))


def augment_both(target: Augment, source: Augment, *, classes: tuple[int, int]) -> Augment:
    """Augments the rows of each task by themselves, so that images of different tasks are never mixed.

    Args:
        target: What is done to the target's part of a batch.
        source: What is done to the source's part.
        classes: Numbers of classes of the target and of the source.

    Returns:
        What is done to a whole batch, whose labels of the source are offset by the target's classes.
    """
    own, others = classes

    def augment(
        inputs: dict[str, tf.Tensor], labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        border = tf.reduce_sum(tf.cast(labels < own, tf.int32))
        above, above_labels = target({n: v[:border] for n, v in inputs.items()}, labels[:border], seed)
        below, below_labels = source(
            {n: v[border:] for n, v in inputs.items()}, labels[border:] - own, seed + [0, 1]
        )
        if above_labels.dtype.is_floating:
            above_labels = tf.pad(above_labels, [[0, 0], [0, others]])
            below_labels = tf.pad(below_labels, [[0, 0], [own, 0]])
        else:
            below_labels = below_labels + own
        joined = {name: tf.concat([values, below[name]], axis=0) for name, values in above.items()}
        return joined, tf.concat([above_labels, below_labels], axis=0)

    return augment
