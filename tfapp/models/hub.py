"""TF-Hub BERT under Keras 3: the SavedModel's variables are copied into keras-hub's BERT.

TF-Hub's own words (``input_word_ids``, ``input_mask``, ``input_type_ids``) stay inside this module and
`hub_layer`. A graph that is not BERT's runs as it is, inside a trainable layer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import WeightsError
from tfapp.models.encoders import copy_backbone
from tfapp.models.hub_cache import resolve_handle, vocabulary_folder
from tfapp.models.hub_layer import make_hub_backbone
from tfapp.models.huggingface import read_vocabulary

_logger = logging.getLogger("tfapp")
_WORDS = "word_embeddings/embeddings"
# Copies are exact up to float32 rounding, about 5e-7; another activation or epsilon differs by 1e-3.
_TOLERANCE = 1e-4


def load_hub_backbone(
    name: str,
    *,
    dtype: str | None = None,
    load_weights: bool = True,
    tokenizer: WordPieceTokenizer | None = None,
) -> tuple[keras.Model, WordPieceTokenizer, str]:
    """Loads a TF-Hub BERT encoder.

    The variables are copied by name into a keras-hub backbone, and the copy is compared with the SavedModel's
    own outputs. Where a variable is left over, or the outputs differ, the SavedModel itself is wrapped.

    Args:
        name: Folder of the SavedModel, or its handle.
        dtype: Keras dtype policy of the backbone; the global one when None. A wrapped graph ignores it.
        load_weights: Whether to copy the weights; without them they are random.
        tokenizer: Tokenizer to use; when None, one is made from the model's vocabulary.

    Returns:
        The backbone, its tokenizer, and the pooling that it was trained with.

    Raises:
        WeightsError: If the SavedModel cannot be found or loaded, or no vocabulary is found.
    """
    folder = resolve_handle(name)
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        # A damaged SavedModel shows as one of many TensorFlow and protobuf errors.
        raise WeightsError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    tokenizer = tokenizer or _make_tokenizer(name, folder, loaded)
    backbone = copy_hub_variables(loaded, load_weights=load_weights)
    if backbone is None:
        takes_training = _outputs(loaded, training=False) is not None
        return make_hub_backbone(str(folder), pass_training=takes_training), tokenizer, "pooler"
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    if policy.name != "float32":
        backbone = copy_backbone(backbone, dtype=policy.name)
    return backbone, tokenizer, "pooler"


def copy_hub_variables(loaded: Any, *, load_weights: bool = True) -> keras.Model | None:
    """Copies a TF-Hub BERT into keras-hub's BERT, if that is what it is.

    Args:
        loaded: What ``tf.saved_model.load`` gives, kept alive by the caller.
        load_weights: Whether to copy the weights; without them they are random.

    Returns:
        A float32 backbone with the same outputs, or None if the graph is another.
    """
    named = {variable.name.split(":")[0]: variable for variable in getattr(loaded, "variables", [])}
    prefixes = [name.removesuffix(_WORDS) for name in named if name.endswith(_WORDS)]
    if len(prefixes) != 1:
        _logger.info("the SavedModel's variables are not BERT's; it is used as it is")
        return None
    source = {name.removeprefix(prefixes[0]): variable for name, variable in named.items()}
    backbone = _empty_backbone(source)
    targets = {} if backbone is None else _targets(backbone)
    unmatched = sorted(set(source) ^ set(targets))
    if backbone is None or unmatched:
        _logger.info(
            "the SavedModel is not plain BERT (%s ...); it is used as it is", ", ".join(unmatched[:3])
        )
        return None
    if not load_weights:
        return backbone
    for name, target in targets.items():
        value = source[name].numpy()
        if value.size != int(np.prod(target.shape)):
            _logger.info("%s has shape %s; the SavedModel is used as it is", name, value.shape)
            return None
        target.assign(value.reshape(target.shape))
    difference = _difference(loaded, backbone)
    if not difference < _TOLERANCE:
        _logger.info("a copy of the SavedModel differs from it by %.1e; it is used as it is", difference)
        return None
    return backbone


def _empty_backbone(source: dict[str, tf.Variable]) -> keras.Model | None:
    """Builds the backbone whose sizes the variables have."""
    try:
        vocabulary_size, hidden_dim = source[_WORDS].shape
        _, num_heads, _ = source["transformer/layer_0/self_attention/query/kernel"].shape
        return keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=sum(name.endswith("/self_attention/query/kernel") for name in source),
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=source["transformer/layer_0/intermediate/kernel"].shape[1],
            max_sequence_length=source["position_embedding/embeddings"].shape[0],
            num_segments=source["type_embeddings/embeddings"].shape[0],
            dtype="float32",
        )
    except (KeyError, ValueError, IndexError):
        return None


def _targets(backbone: keras.Model) -> dict[str, keras.Variable]:
    """Returns the backbone's variables by their TF-Hub names."""
    targets = {
        _WORDS: backbone.token_embedding.embeddings,
        "position_embedding/embeddings": backbone.position_embedding.position_embeddings,
        "type_embeddings/embeddings": backbone.segment_embedding.embeddings,
    }
    pairs = [
        ("embeddings/layer_norm", backbone.embeddings_layer_norm),
        ("pooler_transform", backbone.pooled_dense),
    ]
    for index, block in enumerate(backbone.transformer_layers):
        attention = block._self_attention_layer
        layers = {
            "self_attention/query": attention.query_dense,
            "self_attention/key": attention.key_dense,
            "self_attention/value": attention.value_dense,
            "self_attention/attention_output": attention.output_dense,
            "self_attention_layer_norm": block._self_attention_layer_norm,
            "intermediate": block._feedforward_intermediate_dense,
            "output": block._feedforward_output_dense,
            "output_layer_norm": block._feedforward_layer_norm,
        }
        pairs += [(f"transformer/layer_{index}/{name}", layer) for name, layer in layers.items()]
    for prefix, layer in pairs:
        for part in ("gamma", "beta") if prefix.endswith("layer_norm") else ("kernel", "bias"):
            targets[f"{prefix}/{part}"] = getattr(layer, part)
    return targets


def _sample() -> dict[str, tf.Tensor]:
    ids = tf.constant([[2, 1, 4, 3, 0, 0], [4, 3, 2, 1, 3, 1]])
    mask = tf.constant([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.constant([[0] * 6, [0, 0, 0, 1, 1, 1]])}


def _outputs(loaded: Any, **arguments: bool) -> dict[str, tf.Tensor] | None:
    """Calls the SavedModel on a few tokens; None when it does not take that."""
    sample = _sample()
    inputs = {
        "input_word_ids": sample["token_ids"],
        "input_mask": sample["padding_mask"],
        "input_type_ids": sample["segment_ids"],
    }
    try:
        outputs: dict[str, tf.Tensor] = loaded(inputs, **arguments)
    except (ValueError, TypeError):
        return None
    return outputs


def _difference(loaded: Any, backbone: keras.Model) -> float:
    """Returns by how much the copy's outputs differ from the SavedModel's at most."""
    theirs = _outputs(loaded, training=False) or _outputs(loaded)
    if theirs is None:
        return float("inf")
    ours = backbone(_sample())
    return max(
        float(np.max(np.abs(ours[name] - theirs[name]))) for name in ("sequence_output", "pooled_output")
    )


def _make_tokenizer(name: str, folder: Path, loaded: Any) -> WordPieceTokenizer:
    """Makes the tokenizer from the model's own vocabulary, or that of its preprocessing model."""
    tokenizer = read_vocabulary(vocabulary_folder(name, folder))
    says = getattr(loaded, "do_lower_case", None)
    if says is None or bool(says) == tokenizer.lowercase:
        return tokenizer
    return WordPieceTokenizer(tokenizer.vocabulary, lowercase=bool(says))
