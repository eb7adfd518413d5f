"""Batches of rows of similar length: little padding, and an order that the seed decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augment
from tfapp.data.balancing import SAMPLINGS, draw_balanced, draw_each_once, draw_views
from tfapp.data.encoded import EncodedTexts
from tfapp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from tfapp.data.mixed_rows import SourceRows

POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches, after shuffling."""

TOKEN_INPUTS = ("token_ids", "padding_mask", "segment_ids")
"""Inputs that encoded texts can be gathered as."""

_NO_ROW = -1


class Rows(Protocol):
    """Rows held in memory that batches are gathered from.

    Attributes:
        lengths: Length of each row in tokens, int32 ``(rows,)``; all 1 where rows have no length.
    """

    lengths: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """How many rows there are."""

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The inputs of the rows ``indices`` int32 ``(batch,)``, padded to the longest of them."""


class TokenRows:
    """Encoded texts as rows.

    Args:
        encoded: The texts' ids.
        pad_id: The id that fills short rows up.
        inputs: Names of the inputs that the model declares; rows are gathered for these only.
        pad_to: Widths are rounded up to a multiple of this many tokens, so that compilers see few shapes,
            but never beyond the length at which the texts were cut.
    """

    def __init__(
        self,
        encoded: EncodedTexts,
        *,
        pad_id: int,
        inputs: Sequence[str] = TOKEN_INPUTS,
        pad_to: int = 1,
    ) -> None:
        self.lengths = encoded.lengths
        self.pad_id = pad_id
        self.inputs = tuple(inputs)
        self.pad_to = pad_to
        self.limit = max(encoded.max_length, int(self.lengths.max(initial=1)))
        self._ids = tf.constant(encoded.values)
        self._splits = tf.constant(encoded.row_splits)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers the declared ones of `TOKEN_INPUTS`, each int32 ``(batch, length)``."""
        starts = tf.gather(self._splits, indices)
        lengths = tf.cast(tf.gather(self._splits, indices + 1) - starts, tf.int32)
        width = round_up(_longest(lengths), self.pad_to)
        position = tf.range(tf.minimum(width, self.limit))[tf.newaxis]
        mask = position < lengths[:, tf.newaxis]
        source = tf.where(mask, tf.cast(starts, tf.int32)[:, tf.newaxis] + position, 0)
        token_ids = tf.where(mask, tf.gather(self._ids, source), self.pad_id)
        gathered = {
            "token_ids": token_ids,
            "padding_mask": tf.cast(mask, tf.int32),
            "segment_ids": tf.zeros_like(token_ids),
        }
        return {name: gathered[name] for name in self.inputs}


class FeatureRows:
    """Cached features as rows: one array a row, or token vectors laid end to end.

    Args:
        arrays: ``features`` ``(rows, hidden)``, ``hidden`` ``(rows, height, width, channels)``, or
            ``hidden`` ``(tokens, hidden)``.
        row_splits: Where each row's token vectors begin, int64 ``(rows + 1,)``; None for one array a row.
        pad_to: As in `TokenRows`.
    """

    def __init__(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        row_splits: npt.NDArray[np.int64] | None = None,
        *,
        pad_to: int = 1,
    ) -> None:
        self.pad_to = pad_to
        self._arrays = {name: tf.constant(array) for name, array in arrays.items()}
        self._splits = None if row_splits is None else tf.constant(row_splits)
        rows = len(next(iter(arrays.values())))
        self.lengths = np.ones(rows, np.int32) if row_splits is None else np.diff(row_splits).astype(np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gathers float32 features ``(batch, ...)``; with ``(batch, length, hidden)`` goes a mask."""
        if self._splits is None:
            return {
                name: tf.cast(tf.gather(array, indices), tf.float32) for name, array in self._arrays.items()
            }
        starts = tf.gather(self._splits, indices)
        lengths = tf.cast(tf.gather(self._splits, indices + 1) - starts, tf.int32)
        position = tf.range(round_up(_longest(lengths), self.pad_to))[tf.newaxis]
        mask = position < lengths[:, tf.newaxis]
        source = tf.where(mask, tf.cast(starts, tf.int32)[:, tf.newaxis] + position, 0)
        gathered = {
            name: tf.cast(tf.gather(array, source), tf.float32) * tf.cast(mask, tf.float32)[..., tf.newaxis]
            for name, array in self._arrays.items()
        }
        return {**gathered, "padding_mask": tf.cast(mask, tf.int32)}


def _longest(lengths: tf.Tensor) -> tf.Tensor:
    """The largest length, 1 where there is no row: of an epoch's last batch a worker may have none."""
    return tf.maximum(tf.reduce_max(lengths), 1)


def round_up(length: Any, multiple: int) -> Any:
    """Rounds a length up to a multiple.

    Args:
        length: An integer or a tensor of integers.
        multiple: 1 or more.

    Returns:
        The like of ``length``.
    """
    return -(-length // multiple) * multiple


def epoch_plan(
    lengths: tf.Tensor,
    *,
    batch_size: int,
    seed: int,
    epoch: tf.Tensor,
    pool_batches: int = POOL_BATCHES,
    drawn: tf.Tensor | None = None,
) -> tf.Tensor:
    """Decides which rows stand together in an epoch's batches.

    Rows are shuffled, sorted by length within pools, cut into batches, and the batches are shuffled.

    Args:
        lengths: int32 ``(rows,)``.
        batch_size: Rows a batch, 1 or more.
        seed: Decides every epoch's order; at least 0 and less than 2^63 - 2.
        epoch: Number of the epoch, an integer scalar.
        pool_batches: Batches a pool; 1 gives plain shuffling.
        drawn: Indices of the rows that the epoch holds, int32 ``(drawn,)``; None for every row once.

    Returns:
        Row indices, int32 ``(batches, batch_size)``; the one batch that is not full ends in -1.

    Reference:
        The idea is the length grouping of most sequence trainers; see also Khomenko et al. 2016,
        Accelerating recurrent neural network training using sequence bucketing, arXiv:1708.05604.
    """
    drawn = tf.range(tf.shape(lengths)[0]) if drawn is None else drawn
    rows = tf.shape(drawn)[0]
    epoch = tf.cast(epoch, tf.int64)
    order = tf.random.experimental.stateless_shuffle(drawn, seed=[tf.constant(seed, tf.int64), epoch])
    pool = tf.range(rows) // (batch_size * pool_batches)
    key = tf.cast(pool, tf.int64) * (tf.int32.max + 1) + tf.cast(tf.gather(lengths, order), tf.int64)
    order = tf.gather(order, tf.argsort(key, stable=True))
    missing = -rows % batch_size
    batches = tf.reshape(tf.pad(order, [[0, missing]], constant_values=_NO_ROW), [-1, batch_size])
    return tf.random.experimental.stateless_shuffle(batches, seed=[tf.constant(seed + 1, tf.int64), epoch])


def training_batches(
    rows: Rows,
    labels: npt.NDArray[np.int32],
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    first_step: int = 0,
    class_weights: npt.NDArray[np.float32] | None = None,
    sampling: str = "natural",
    views: int = 1,
    augment: Augment | None = None,
    beside: SourceRows | None = None,
    share: tuple[int, int] = (0, 1),
    full: bool = False,
) -> tf.data.Dataset:
    """Batches for training, epoch after epoch without end; an epoch has ``ceil(len(labels) / batch_size)``.

    Args:
        rows: What to gather from.
        labels: Class indices, int32 ``(len(rows) / views,)``.
        batch_size: Rows a batch.
        seed: Decides the order of every epoch, and everything else that is drawn.
        first_epoch: Where to begin, so that a resumed run sees the batches of an unbroken one.
        first_step: How many batches of that epoch are left out.
        class_weights: float32 ``(num_classes,)`` to weigh rows by their class, or None; labels that are
            distributions weigh as the mean of their classes.
        sampling: ``"natural"`` for every row once an epoch, ``"balanced"`` for every class equally often.
        views: How many variants of each labelled row ``rows`` holds, all rows of the first before all of
            the second. A row is seen in one variant at a time, in the next one when its turn comes again.
        augment: What is done to every batch, with a seed of its own; it may turn labels into distributions,
            float32 ``(batch, num_classes)``.
        beside: Rows of another task that stand in every batch behind these; ``rows`` then holds both.
        share: Which of how many equal parts of every batch is wanted, as ``(number, parts)``; the last parts
            of a batch that is not full may be empty.
        full: Whether the one batch of an epoch that is not full is left out, and shapes say how many rows
            there are, as compilers of TPUs want it.

    Returns:
        A dataset of ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``.

    Raises:
        ConfigError: When the sampling is unknown.
    """
    own = views * len(labels)
    targets = tf.constant(labels if beside is None else np.concatenate([labels, beside.labels]))
    weights = None if class_weights is None else tf.constant(class_weights)
    planned = _planner(
        rows,
        labels,
        batch_size=batch_size,
        seed=seed,
        sampling=sampling,
        views=views,
        beside=beside,
        full=full,
    )

    number, parts = share

    def plan(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = planned(epoch)
        if parts > 1:
            part = -(-tf.shape(batches)[1] // parts)
            batches = batches[:, number * part : (number + 1) * part]
        if augment is None:
            return tf.data.Dataset.from_tensor_slices((batches,))
        seeds = tf.random.stateless_uniform(
            [tf.shape(batches)[0], 2], [tf.constant(seed + 2, tf.int64), epoch], None, None, tf.int64
        )
        seeds += number  # what is drawn for one part is not drawn again for the next
        return tf.data.Dataset.from_tensor_slices((batches, seeds))

    def collect(indices: tf.Tensor, batch_seed: tf.Tensor | None = None) -> tuple[Any, ...]:
        indices = tf.boolean_mask(indices, indices != _NO_ROW)
        if full:
            indices = tf.ensure_shape(indices, [batch_size // parts])
        inputs = rows.gather(indices)
        labelled = tf.where(indices < own, indices % len(labels), indices - own + len(labels))
        batch_labels = tf.gather(targets, labelled)
        if augment is not None:
            inputs, batch_labels = augment(inputs, batch_labels, batch_seed)
        if weights is None:
            return inputs, batch_labels
        if batch_labels.dtype.is_floating:
            return inputs, batch_labels, tf.linalg.matvec(batch_labels, weights)
        return inputs, batch_labels, tf.gather(weights, batch_labels)

    epochs = tf.data.Dataset.range(first_epoch, tf.int32.max)
    return _gathered(epochs.flat_map(plan).skip(first_step), collect)


def rows_of_step(
    rows: Rows,
    labels: npt.NDArray[np.int32],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    step: int,
    sampling: str = "natural",
    views: int = 1,
    full: bool = False,
) -> npt.NDArray[np.int32]:
    """Tells which rows stand in a batch of `training_batches`, without those of another task.

    Args:
        rows: What is gathered from.
        labels: Class indices, int32 ``(len(rows) / views,)``.
        batch_size: Rows a batch.
        seed: Decides the order.
        epoch: Number of the epoch, from 0.
        step: Number of the batch in it, from 0.
        sampling: How rows are drawn.
        views: How many variants of each labelled row there are.
        full: As in `training_batches`.

    Returns:
        Numbers of the labelled rows, int32 ``(count,)``.
    """
    planned = _planner(
        rows, labels, batch_size=batch_size, seed=seed, sampling=sampling, views=views, beside=None, full=full
    )
    indices = planned(tf.constant(epoch, tf.int64)).numpy()[step]
    found: npt.NDArray[np.int32] = indices[indices != _NO_ROW] % len(labels)
    return found


def _planner(
    rows: Rows,
    labels: npt.NDArray[np.int32],
    *,
    batch_size: int,
    seed: int,
    sampling: str,
    views: int,
    beside: SourceRows | None,
    full: bool,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes the function from the number of an epoch to the rows of its batches."""
    if sampling not in SAMPLINGS:
        raise ConfigError(f"unknown sampling {sampling!r}; {nearest(sampling, SAMPLINGS)}")
    lengths = tf.constant(rows.lengths)
    draw = draw_balanced(labels, seed=seed) if sampling == "balanced" else draw_each_once(len(labels))
    if views > 1:
        draw = draw_views(draw, len(labels), views=views, seed=seed)

    def planned(epoch: tf.Tensor) -> tf.Tensor:
        batches = epoch_plan(lengths, batch_size=batch_size, seed=seed, epoch=epoch, drawn=draw(epoch)[0])
        if full:
            batches = tf.boolean_mask(batches, tf.reduce_all(batches != _NO_ROW, axis=1))
        return batches if beside is None else beside.extend(batches, epoch)

    return planned


def evaluation_batches(
    rows: Rows, labels: npt.NDArray[np.int32] | None = None, *, batch_size: int
) -> tuple[tf.data.Dataset, npt.NDArray[np.int64]]:
    """Every row once, shortest first, for inference.

    Args:
        rows: What to gather from.
        labels: Class indices, int32 ``(rows,)``, to get ``(inputs, labels)``; None to get inputs only.
        batch_size: Rows a batch.

    Returns:
        The dataset, and the order of its rows as indices into ``rows``, int64 ``(rows,)``.
    """
    order = np.argsort(rows.lengths, kind="stable")
    targets = None if labels is None else tf.constant(labels)

    def collect(indices: tf.Tensor) -> Any:
        inputs = rows.gather(tf.cast(indices, tf.int32))
        return inputs if targets is None else (inputs, tf.gather(targets, indices))

    return _gathered(tf.data.Dataset.from_tensor_slices(order).batch(batch_size), collect), order


def _gathered(plan: tf.data.Dataset, collect: Callable[..., Any]) -> tf.data.Dataset:
    """Gathers batches ahead of their use, by numbers that are known to do."""
    options = tf.data.Options()
    # The tuner's thread sleeps up to a minute, and ending an iteration can wait for it to wake up.
    options.autotune.enabled = False
    # A batch is shared among workers; files would be.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return plan.map(collect, num_parallel_calls=2, deterministic=True).prefetch(4).with_options(options)


def padding_share(rows: TokenRows, *, batch_size: int, seed: int) -> float:
    """Share of padding among the tokens of a training epoch's batches.

    Args:
        rows: The rows.
        batch_size: Rows a batch.
        seed: As in `training_batches`; its first epoch is measured.

    Returns:
        A fraction, 0 up to 1.
    """
    plan = epoch_plan(
        tf.constant(rows.lengths), batch_size=batch_size, seed=seed, epoch=tf.constant(0)
    ).numpy()
    lengths = np.where(plan == _NO_ROW, 0, rows.lengths[plan])
    filled = (plan != _NO_ROW).sum(axis=1)
    widths = np.minimum(-(-lengths.max(axis=1) // rows.pad_to) * rows.pad_to, rows.limit)
    padded = float((widths * filled).sum())
    return 1.0 - float(lengths.sum()) / padded if padded else 0.0
