"""A classifier's forward pass for one text at a time, as edge runtimes answer requests.

One text needs no padding: without a mask and a batch dimension the graph has half the operators, and its
products are plain matrix products, which the kernels of TFLite handle best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras_hub
import tensorflow as tf


def single_text_logits(model: Any) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Makes the forward pass for one text, on the model's own variables.

    Args:
        model: A `Classifier` that computes in float32.

    Returns:
        A function from one string ``(1,)`` to logits ``(1, num_classes)``; None where the backbone is not
        a keras-hub BERT.
    """
    if type(model.backbone) is not keras_hub.models.BertBackbone:
        return None

    def logits(texts: tf.Tensor) -> tf.Tensor:
        tokenizer = model.preprocessor
        pieces = tokenizer.tokenize(texts).values[: tokenizer.max_length - 2]
        hidden = _embed(model.backbone, tf.concat([[tokenizer.cls_id], pieces, [tokenizer.sep_id]], axis=0))
        for block in model.backbone.transformer_layers:
            hidden = _block(model.backbone, block, hidden)
        if model.pooling == "mean":
            features = tf.reduce_mean(hidden, axis=0, keepdims=True)
        else:
            features = hidden[:1]
            if model.pooling == "pooler":
                pooler = model.backbone.pooled_dense
                features = tf.tanh(_dense(features, pooler.kernel.value, pooler.bias.value))
        head = model.head_layers[1]
        return _dense(features, head.kernel.value, head.bias.value)

    return logits


def _dense(inputs: tf.Tensor, kernel: Any, bias: Any) -> tf.Tensor:
    return tf.matmul(inputs, kernel) + bias


def _norm(inputs: tf.Tensor, layer: Any) -> tf.Tensor:
    centred = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + layer.epsilon) * layer.gamma.value + layer.beta.value


def _embed(backbone: Any, ids: tf.Tensor) -> tf.Tensor:
    tokens = tf.gather(backbone.token_embedding.embeddings.value, ids)
    places = (
        backbone.position_embedding.position_embeddings.value + backbone.segment_embedding.embeddings.value[0]
    )
    return _norm(tokens + places[: tf.shape(ids)[0]], backbone.embeddings_layer_norm)


def _block(backbone: Any, block: Any, hidden: tf.Tensor) -> tf.Tensor:
    width, heads = backbone.hidden_dim, backbone.num_heads
    size = width // heads
    attention = block._self_attention_layer
    # Query, key and value are one product; the scale of the scores goes into the query's weights.
    parts = ((attention._query_dense, size**-0.5), (attention._key_dense, 1.0), (attention._value_dense, 1.0))
    kernel = tf.concat(
        [tf.reshape(layer.kernel.value, [width, width]) * scale for layer, scale in parts], axis=1
    )
    bias = tf.concat([tf.reshape(layer.bias.value, [width]) * scale for layer, scale in parts], axis=0)
    joint = tf.transpose(tf.reshape(_dense(hidden, kernel, bias), [-1, 3 * heads, size]), [1, 0, 2])
    query, key, value = joint[:heads], joint[heads : 2 * heads], joint[2 * heads :]
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
    mixed = tf.reshape(tf.transpose(tf.matmul(weights, value), [1, 0, 2]), [-1, width])
    output = attention._output_dense
    attended = _dense(mixed, tf.reshape(output.kernel.value, [width, width]), output.bias.value)
    hidden = _norm(hidden + attended, block._self_attention_layer_norm)
    widen, narrow = block._feedforward_intermediate_dense, block._feedforward_output_dense
    inner = tf.nn.gelu(_dense(hidden, widen.kernel.value, widen.bias.value), approximate=True)
    return _norm(
        hidden + _dense(inner, narrow.kernel.value, narrow.bias.value), block._feedforward_layer_norm
    )
