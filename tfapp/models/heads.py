"""What stands on a backbone: pooling over tokens, dropout, and the layer that gives the logits."""

from __future__ import annotations

import keras

from tfapp.errors import ConfigError, nearest

POOLINGS = ("mean", "cls", "pooler")


def check_pooling(pooling: str) -> None:
    """Checks the name of a pooling.

    Args:
        pooling: One of ``"mean"``, ``"cls"``, ``"pooler"``.

    Raises:
        ConfigError: If it is none of them.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"unknown pooling {pooling!r}: {nearest(pooling, POOLINGS)}")


def mean_over_tokens(hidden: keras.KerasTensor, padding_mask: keras.KerasTensor) -> keras.KerasTensor:
    """Averages hidden states over the real tokens, in float32 whatever the precision of the model.

    Args:
        hidden: Hidden states ``(batch, sequence, hidden)``.
        padding_mask: 1 for tokens and 0 for padding, int32 ``(batch, sequence)``.

    Returns:
        float32 ``(batch, hidden)``; zeros for a row without tokens.
    """
    weights = keras.ops.cast(keras.ops.expand_dims(padding_mask, -1), "float32")
    total = keras.ops.sum(keras.ops.cast(hidden, "float32") * weights, axis=1)
    return total / keras.ops.maximum(keras.ops.sum(weights, axis=1), 1.0)


def first_token(hidden: keras.KerasTensor) -> keras.KerasTensor:
    """Takes the hidden state of the first token, [CLS].

    Args:
        hidden: Hidden states ``(batch, sequence, hidden)``.

    Returns:
        ``(batch, hidden)`` in the precision of ``hidden``.
    """
    return hidden[:, 0, :]


def make_head(
    num_classes: int, dropout_rate: float, *, seed: int, name: str = "logits"
) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Makes the dropout and the dense layer between pooled features and logits, both in float32.

    Args:
        num_classes: Number of logits; 2 or more.
        dropout_rate: Share of features dropped in training, from 0 up to but not including 1.
        seed: Seed of the initial weights.
        name: Name of the dense layer.

    Returns:
        The dropout layer and the dense layer.

    Raises:
        ConfigError: If the dropout rate is out of range.
    """
    if not 0.0 <= dropout_rate < 1.0:
        raise ConfigError(f"dropout_rate = {dropout_rate}: it must be at least 0 and less than 1.")
    dropout = keras.layers.Dropout(dropout_rate, dtype="float32", name="head_dropout")
    dense = keras.layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02, seed=seed),
        dtype="float32",
        name=name,
    )
    return dropout, dense
