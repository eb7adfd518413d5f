"""What Keras's `fit` lacks on several machines, kept apart so that it can go once Keras has it.

Keras averages the metrics of a step over the replicas of all machines along their first dimension, and they
have none (keras-team/keras#20585). Nothing is changed where one machine trains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer as keras_trainer

LAST_WITHOUT = (3, 15)
"""The newest release of Keras that is known to need it; newer ones are used as they come."""


def needs_repair() -> bool:
    """Whether this release of Keras is one that fails on several machines."""
    return tuple(int(part) for part in keras.__version__.split(".")[:2]) <= LAST_WITHOUT


@contextlib.contextmanager
def scalars_averaged(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Lets Keras average scalars over machines within the block.

    Args:
        strategy: The strategy that trains.

    Yields:
        Nothing.
    """
    if not (isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and needs_repair()):
        yield
        return
    own = keras_trainer.reduce_per_replica

    def reduce(values: Any, strategy: tf.distribute.Strategy, reduction: str) -> Any:
        if reduction not in ("auto", "mean"):
            return own(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    keras_trainer.reduce_per_replica = reduce
    try:
        yield
    finally:
        keras_trainer.reduce_per_replica = own
