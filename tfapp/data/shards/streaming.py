"""Batches straight from shards: endless, in an order that the seed decides, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import Augment
from tfapp.data.bucketing import POOL_BATCHES, round_up
from tfapp.data.shards.manifest import FEATURES, Shards
from tfapp.errors import ConfigError

OPEN_SHARDS = 16
"""How many shards are read in turns."""
_RUN = 16
_MOST_BUFFERED_ROWS, _BUFFERED_BYTES = 1 << 14, 1 << 26
_FILES, _BLOCKS, _POOLS = 0, 1, 2
_NO_ROW = -1
_PARALLEL_CALLS, _AHEAD = 2, 4


@dataclass(frozen=True)
class Stream:
    """How the rows of shards become batches.

    Attributes:
        shards: The shards.
        preprocessor: The model's: what encodes texts or decodes images.
        inputs: Names of the inputs that the model declares.
        batch_size: Rows a batch, of all workers together.
        seed: Decides the order of every epoch, and everything else that is drawn.
        pad_to: Widths of texts are rounded up to a multiple of this many tokens, up to ``max_length``.
        class_weights: float32 ``(num_classes,)`` to weigh rows by their class, or None.
        augment: What is done to every batch, with a seed of its own; of texts, which it encodes.
        augments_texts: Whether ``augment`` takes texts rather than pixels.
        split: The split to read.
    """

    shards: Shards
    preprocessor: Any
    inputs: Sequence[str]
    batch_size: int
    seed: int
    pad_to: int = 1
    class_weights: npt.NDArray[np.float32] | None = None
    augment: Augment | None = None
    augments_texts: bool = False
    split: str = "train"

    @property
    def buffered_rows(self) -> int:
        """Rows that are shuffled among each other: about 64 MiB, and whole batches of whole pools."""
        own = self.shards.of(self.split)
        mean = sum(shard.bytes for shard in own) / max(1, sum(shard.rows for shard in own))
        rows = min(_MOST_BUFFERED_ROWS, int(_BUFFERED_BYTES / max(1.0, mean)))
        return max(1, rows // self.pool_rows) * self.pool_rows

    @property
    def pool_batches(self) -> int:
        """Batches within which rows are sorted by length; images have none."""
        return POOL_BATCHES if self.shards.manifest.kind == "text" else 1

    @property
    def pool_rows(self) -> int:
        """Rows of these batches."""
        return self.pool_batches * self.batch_size


def streamed_batches(
    stream: Stream,
    *,
    first_epoch: int = 0,
    first_step: int = 0,
    share: tuple[int, int] = (0, 1),
    stripe: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Reads batches for training, epoch after epoch without end; an epoch has ``ceil(rows / batch_size)``.

    In every epoch the shards are read in another order, several in turns; rows are shuffled within about
    64 MiB, and texts sorted by length within pools of batches.

    Args:
        stream: What is read, and how.
        first_epoch: Where to begin, so that a resumed run sees the batches of an unbroken one.
        first_step: How many batches of that epoch are left out.
        share: Number of this worker and of all. A worker gets its part of every batch, padded as the whole
            is: the parts of all workers, one behind the other, are the batch, and differ by a row at most.
        stripe: Which batches of how many: ``(1, 3)`` gives the second and every third one after it.

    Returns:
        A dataset of ``(inputs, labels)`` or ``(inputs, labels, sample_weight)``.

    Raises:
        ConfigError: When there is no such share.
    """
    index, count = share
    if not 0 <= index < count:
        raise ConfigError(f"share = {share}: there is no part {index} of {count}.")
    skipped_pools, skipped_batches = divmod(first_step, stream.pool_batches)
    plan = _text_plan(stream) if stream.shards.manifest.kind == "text" else _image_plan

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        pools = _records(stream, epoch).batch(stream.pool_rows).enumerate()
        pools = pools.skip(
            tf.where(epoch == first_epoch, tf.constant(skipped_pools, tf.int64), tf.constant(0, tf.int64))
        )
        planned = pools.map(
            lambda number, records: (epoch, number, *plan(stream, epoch, number, records)),
            num_parallel_calls=_PARALLEL_CALLS,
            deterministic=True,
        )
        return planned.flat_map(_each_batch)

    batches = tf.data.Dataset.range(first_epoch, tf.int32.max).flat_map(epoch_batches).skip(skipped_batches)
    if stripe[1] > 1:
        batches = batches.shard(stripe[1], stripe[0])
    collect = _collector(stream, share)
    ready = batches.map(collect, num_parallel_calls=_PARALLEL_CALLS, deterministic=True).prefetch(_AHEAD)
    return ready.with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # The tuner's thread sleeps up to a minute, and ending an iteration can wait for it to wake up.
    options.autotune.enabled = False
    return options


def _seed(stream: Stream, epoch: tf.Tensor, *numbers: Any) -> tf.Tensor:
    seed = tf.stack([tf.constant(stream.seed, tf.int64), tf.cast(epoch, tf.int64)])
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))
    return seed


def _records(stream: Stream, epoch: tf.Tensor) -> tf.data.Dataset:
    """The records of an epoch, shuffled by shard and then within blocks."""
    paths = stream.shards.paths(stream.split)
    shuffled = tf.random.experimental.stateless_shuffle(
        tf.range(len(paths)), seed=_seed(stream, epoch, _FILES)
    )
    files = tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant(paths), shuffled))
    turns = min(len(paths), OPEN_SHARDS)
    records = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=turns,
        block_length=_RUN,
        num_parallel_calls=min(turns, _PARALLEL_CALLS),
        deterministic=True,
    )
    blocks = records.batch(stream.buffered_rows).enumerate()

    def shuffle(number: tf.Tensor, block: tf.Tensor) -> tf.data.Dataset:
        seed = _seed(stream, epoch, _BLOCKS, number)
        order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(block)), seed=seed)
        return tf.data.Dataset.from_tensor_slices(tf.gather(block, order))

    return blocks.flat_map(shuffle)


def _parsed(stream: Stream, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The content of records, and their class indices, int32 ``(rows,)``."""
    content = FEATURES[stream.shards.manifest.kind]
    scalar = tf.io.FixedLenFeature([], tf.string)
    features = tf.io.parse_example(records, {content: scalar, "label": scalar})
    classes = tf.constant(stream.shards.classes)
    # No table: the graph must be the same in a worker of the tf.data service.
    matches = tf.cast(features["label"][:, tf.newaxis] == classes[tf.newaxis], tf.int8)
    return features[content], tf.argmax(matches, axis=1, output_type=tf.int32)


Plan = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def _text_plan(stream: Stream) -> Callable[..., Plan]:
    tokenizer = stream.preprocessor

    def plan(stream: Stream, epoch: tf.Tensor, number: tf.Tensor, records: tf.Tensor) -> Plan:
        """Tokenises a pool, and cuts it into batches of similar length in a shuffled order."""
        texts, labels = _parsed(stream, records)
        pieces = tokenizer.tokenize(texts)
        lengths = tf.minimum(pieces.row_lengths(), tokenizer.max_length - 2)
        order = tf.cast(tf.argsort(lengths, stable=True), tf.int32)
        missing = -tf.size(order) % stream.batch_size
        batches = tf.reshape(tf.pad(order, [[0, missing]], constant_values=_NO_ROW), [-1, stream.batch_size])
        seed = _seed(stream, epoch, _POOLS, number)
        batches = tf.random.experimental.stateless_shuffle(batches, seed=seed)
        return batches, texts, labels, pieces.values, tf.cast(pieces.row_splits, tf.int32)

    return plan


def _image_plan(stream: Stream, epoch: tf.Tensor, number: tf.Tensor, records: tf.Tensor) -> Plan:
    """Takes the rows as they come."""
    images, labels = _parsed(stream, records)
    rows = tf.range(tf.size(images))[tf.newaxis]
    nothing = tf.zeros([0], tf.int32)
    return rows, images, labels, nothing, nothing


def _each_batch(epoch: tf.Tensor, number: tf.Tensor, batches: tf.Tensor, *pool: tf.Tensor) -> tf.data.Dataset:
    """The batches of a pool, each with the pool's rows and the numbers that its own seed is made of."""
    numbers = tf.range(tf.shape(batches)[0])
    each = tf.data.Dataset.from_tensor_slices((numbers, batches))
    return each.map(lambda at, rows: (epoch, number, at, rows, *pool))


def _collector(stream: Stream, share: tuple[int, int]) -> Callable[..., Any]:
    """Makes the function from the rows of a batch to what a model is trained on."""
    weights = None if stream.class_weights is None else tf.constant(stream.class_weights)
    text = stream.shards.manifest.kind == "text"
    preprocessor = stream.preprocessor

    def own(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index, count = share
        return size * index // count, size * (index + 1) // count

    def part(values: Any, size: tf.Tensor) -> Any:
        start, stop = own(size)
        return tf.nest.map_structure(lambda value: value[start:stop], values)

    def collect(
        epoch: tf.Tensor,
        number: tf.Tensor,
        at: tf.Tensor,
        rows: tf.Tensor,
        content: tf.Tensor,
        labels: tf.Tensor,
        pieces: tf.Tensor,
        splits: tf.Tensor,
    ) -> tuple[Any, ...]:
        rows = tf.boolean_mask(rows, rows != _NO_ROW)
        size = tf.size(rows)
        inputs: Any
        batch_labels = tf.gather(labels, rows)
        if stream.augment is None:
            if text:
                inputs = part(_tokens(stream, pieces, splits, rows), size)
            else:
                inputs = preprocessor(part(tf.gather(content, rows), size))
            batch_labels = part(batch_labels, size)
        else:
            chosen = tf.gather(content, rows)
            # A whole batch, for what is drawn for a row may depend on the others.
            whole = {"texts": chosen} if stream.augments_texts else preprocessor(chosen)
            seed = tf.random.stateless_uniform(
                [2], _seed(stream, epoch, _POOLS + 1, number, at), None, None, tf.int64
            )
            inputs, batch_labels = part(stream.augment(whole, batch_labels, seed), size)
        if weights is None:
            return inputs, batch_labels
        if batch_labels.dtype.is_floating:
            return inputs, batch_labels, tf.linalg.matvec(batch_labels, weights)
        return inputs, batch_labels, tf.gather(weights, batch_labels)

    return collect


def _tokens(stream: Stream, pieces: tf.Tensor, splits: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """The declared inputs of texts, padded to the longest of a whole batch."""
    tokenizer = stream.preprocessor
    starts = tf.gather(splits, rows)
    tokens = tokenizer.gather(pieces, starts, tf.gather(splits, rows + 1) - starts)
    width = tf.shape(tokens["token_ids"])[1]
    wider = tf.minimum(round_up(width, stream.pad_to), tf.maximum(width, tokenizer.max_length))
    fillers = {"token_ids": tokenizer.pad_id}
    more = [[0, 0], [0, wider - width]]
    return {name: tf.pad(tokens[name], more, constant_values=fillers.get(name, 0)) for name in stream.inputs}
