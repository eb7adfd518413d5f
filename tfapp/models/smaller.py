"""Smaller encoders from trained ones: some of the blocks, of the vocabulary and of the inner neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError, WeightsError


def smaller_backbone(
    backbone: keras.Model,
    *,
    layers: Sequence[int],
    token_ids: npt.ArrayLike | None = None,
    max_positions: int | None = None,
    intermediate_dim: int | None = None,
) -> keras.Model:
    """Builds a BERT of the same width from parts of another, whose weights it begins with.

    Args:
        backbone: A `keras_hub.models.BertBackbone`.
        layers: Numbers of the blocks to take, from 1, ascending.
        token_ids: Ids of the tokens to take, in the order of the new ids; None for all.
        max_positions: How many positions to take; None for all.
        intermediate_dim: How many neurons of each block's feed-forward layer to take: those with the largest
            product of the norms of their weights in and out; None for all.

    Returns:
        The backbone, with copies of the weights.

    Raises:
        WeightsError: When the backbone is of another family.
        ConfigError: When there are no such blocks, positions or neurons.
    """
    check_can_shrink(backbone)
    config = backbone.get_config()
    check_layers(layers, len(backbone.transformer_layers))
    table = backbone.token_embedding.get_weights()[0]
    ids = np.arange(len(table)) if token_ids is None else np.asarray(token_ids)
    positions = _at_most("max_positions", max_positions, config["max_sequence_length"])
    neurons = check_neurons(backbone, intermediate_dim)
    config |= {
        "vocabulary_size": len(ids),
        "num_layers": len(layers),
        "max_sequence_length": positions,
        "intermediate_dim": neurons,
    }
    del config["name"]
    small = type(backbone).from_config(config)
    small.token_embedding.set_weights([table[ids]])
    small.position_embedding.set_weights([backbone.position_embedding.get_weights()[0][:positions]])
    for name in ("segment_embedding", "embeddings_layer_norm", "pooled_dense"):
        getattr(small, name).set_weights(getattr(backbone, name).get_weights())
    for number, block in zip(layers, small.transformer_layers, strict=True):
        _copy_block(backbone.transformer_layers[number - 1], block, neurons)
    return small


def check_can_shrink(backbone: keras.Model) -> None:
    """Refuses encoders that no smaller one can be taken from.

    Args:
        backbone: The encoder.

    Raises:
        WeightsError: When it is no BERT of keras-hub.
    """
    if type(backbone) is not keras_hub.models.BertBackbone:
        raise WeightsError(
            f"a smaller encoder can be taken from a BERT of keras-hub, not from {type(backbone).__name__}: "
            "fine-tune a BERT as the teacher, such as 'minilm-l6', a keras-hub preset 'bert_...', or a "
            "folder from Hugging Face whose config.json says model_type 'bert'."
        )


def check_layers(layers: Sequence[int], blocks: int) -> None:
    """Refuses numbers of blocks that are not there, or not in order.

    Args:
        layers: Numbers of blocks, from 1.
        blocks: How many there are.

    Raises:
        ConfigError: When one is out of range, or they do not ascend.
    """
    numbers = list(layers)
    if not numbers or numbers != sorted(set(numbers)) or not 1 <= numbers[0] <= numbers[-1] <= blocks:
        raise ConfigError(f"layers = {numbers}: give different numbers from 1 to {blocks}, ascending.")


def check_neurons(backbone: keras.Model, intermediate_dim: int | None) -> int:
    """Refuses more neurons of a feed-forward layer than there are.

    Args:
        backbone: A `keras_hub.models.BertBackbone`.
        intermediate_dim: How many are asked for; None for all.

    Returns:
        How many are taken.

    Raises:
        ConfigError: When there are not so many.
    """
    return _at_most("intermediate_dim", intermediate_dim, backbone.intermediate_dim)


def evenly_spaced(count: int, blocks: int) -> tuple[int, ...]:
    """Chooses blocks at even distances, the last among them.

    Args:
        count: How many to choose.
        blocks: How many there are.

    Returns:
        Their numbers, from 1.

    Raises:
        ConfigError: When there are fewer, or none is asked for.
    """
    if not 1 <= count <= blocks:
        raise ConfigError(f"num_layers = {count}: the teacher has {blocks} blocks; give 1 to {blocks}.")
    return tuple(-(-number * blocks // count) for number in range(1, count + 1))


def _at_most(name: str, asked: int | None, there_are: int) -> int:
    if asked is not None and not 1 <= asked <= there_are:
        raise ConfigError(f"{name} = {asked}: the backbone has {there_are}; give 1 to {there_are}.")
    return int(asked or there_are)


def _copy_block(source: Any, target: Any, neurons: int) -> None:
    """Copies a block, its feed-forward layer down to the most important neurons."""
    parts = (
        "_self_attention_layer",
        "_self_attention_layer_norm",
        "_feedforward_layer_norm",
    )
    for name in parts:
        getattr(target, name).set_weights(getattr(source, name).get_weights())
    widen, bias = source._feedforward_intermediate_dense.get_weights()
    narrow, offset = source._feedforward_output_dense.get_weights()
    importance = np.linalg.norm(widen, axis=0) * np.linalg.norm(narrow, axis=1)
    kept = np.sort(np.argsort(-importance, kind="stable")[:neurons])
    target._feedforward_intermediate_dense.set_weights([widen[:, kept], bias[kept]])
    target._feedforward_output_dense.set_weights([narrow[kept], offset])
