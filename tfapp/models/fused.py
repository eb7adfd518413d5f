"""BERT's forward pass for training on CPUs: large matrix products, and one fused kernel for all between them.

Keras computes GELU, dropout, residual sums and layer normalisation in dozens of passes over memory, forward
and backward. Here each of them is one kernel compiled by XLA with its gradient written down, on the very
variables of the keras-hub backbone, which stays what is saved and exported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import keras_hub
import tensorflow as tf

from tfapp.models.classifier import Classifier
from tfapp.models.kernels import (
    LONG_TEXT,
    WIDTH_STEP,
    bias_gelu,
    dropout_add_norm,
    masked_softmax,
    on_one_processor,
)

Forward = Callable[..., Any]


@dataclass(frozen=True)
class FusedParts:
    """A classifier's forward pass, cut where training stops.

    Attributes:
        lower: From the classifier's inputs to cached features in inference mode, or None for ``"all"``.
        pad_to: Widths of batches should be multiples of this, see `tfapp.models.kernels`.
        upper: ``(inputs, training) -> logits`` on what ``lower`` gives, or on the classifier's inputs.
        embed: For ``"all"`` of texts, from the classifier's inputs to the token embeddings, float32
            ``(batch, sequence, hidden)``; ``upper`` takes others in their place as ``token_embeddings``.
        states: For ``"all"`` of texts, as `tfapp.models.hidden_pass` says.
    """

    lower: Forward | None
    upper: Forward
    pad_to: int = WIDTH_STEP
    embed: Forward | None = None
    states: Forward | None = None


def fused_parts(
    model: Classifier,
    train: Literal["all", "head"] | int,
    *,
    precision: str,
    generator: Any,
    typical_length: float = 0.0,
    beside: keras.layers.Layer | None = None,
) -> FusedParts | None:
    """Makes the fused forward pass of a classifier on a BERT backbone.

    Args:
        model: The classifier.
        train: Where to cut, as in `Classifier.split`.
        precision: ``"float32"``, or ``"mixed_bfloat16"`` for matrix products in bfloat16.
        generator: A `keras.random.SeedGenerator` for dropout.
        typical_length: Length of a typical text in tokens, which decides how attention is computed.
        beside: As in `Classifier.split`: the head of another task.

    Returns:
        The parts; None where they would not be used: another backbone than BERT, a GPU or TPU, or several
        replicas in this process. There Keras's own forward pass serves.
    """
    backbone = model.backbone
    if type(backbone) is not keras_hub.models.BertBackbone or not on_one_processor():
        return None
    return _Fused(model, precision, generator, typical_length >= LONG_TEXT, beside).parts(train)


class _Fused:
    def __init__(
        self,
        model: Classifier,
        precision: str,
        generator: Any,
        fuse_attention: bool,
        beside: keras.layers.Layer | None,
    ) -> None:
        self.model = model
        self.backbone = model.backbone
        self.dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
        self.generator = generator
        self.fuse_attention = fuse_attention
        self.beside = beside
        self.heads = self.backbone.num_heads
        self.width = self.backbone.hidden_dim

    def parts(self, train: Literal["all", "head"] | int) -> FusedParts:
        """Cuts the pass at ``train``."""
        depth = len(self.backbone.transformer_layers)
        cut = {"all": 0, "head": depth}[train] if isinstance(train, str) else depth - train

        def enter(inputs: Any, training: bool) -> Any:
            """What enters the lowest trained block."""
            return self._embed(inputs, training) if train == "all" else tf.cast(inputs["hidden"], self.dtype)

        def lower(inputs: Any, training: bool = False) -> dict[str, Any]:
            mask = inputs["padding_mask"]
            hidden = self._blocks(self._embed(inputs, False), mask, 0, cut, False)
            if train == "head":
                return {"features": self._pool(hidden, mask)}
            return {"hidden": tf.cast(hidden, tf.float32), "padding_mask": mask}

        def upper(inputs: Any, training: bool = False) -> Any:
            if train == "head":
                return self._head(inputs["features"], training)
            mask = inputs["padding_mask"]
            hidden = self._blocks(enter(inputs, training), mask, cut, depth, training)
            return self._head(self._pool(hidden, mask), training)

        def states(inputs: Any, training: bool = False) -> Any:
            mask, passed = inputs["padding_mask"], [enter(inputs, training)]
            for number in range(depth):
                passed.append(self._blocks(passed[-1], mask, number, number + 1, training))
            return self._head(self._pool(passed[-1], mask), training), passed

        return FusedParts(
            None if train == "all" else lower,
            upper,
            embed=self._look_up if train == "all" else None,
            states=states if train == "all" else None,
        )

    def _head(self, features: Any, training: bool) -> Any:
        return self.model.head_logits(features, beside=self.beside, training=training)

    def _pool(self, hidden: Any, mask: Any) -> Any:
        if self.model.pooling == "mean":
            weights = tf.cast(mask, tf.float32)[..., tf.newaxis]
            total = tf.reduce_sum(tf.cast(hidden, tf.float32) * weights, axis=1)
            return total / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        first = tf.cast(hidden[:, 0, :], tf.float32)
        return first if self.model.pooling == "cls" else self.backbone.pooled_dense(first)

    def _seed(self) -> Any:
        return tf.cast(self.generator.next(), tf.int32)

    def _cast(self, variable: Any, *shape: int) -> Any:
        value = tf.cast(variable.value, self.dtype)
        return tf.reshape(value, shape) if shape else value

    def _look_up(self, inputs: Any, training: bool = False) -> Any:
        # The table is read row by row in float32: casting all of it would cost more than the step.
        return tf.gather(self.backbone.token_embedding.embeddings.value, inputs["token_ids"])

    def _embed(self, inputs: Any, training: bool) -> Any:
        backbone = self.backbone
        ids = inputs["token_ids"]
        length = tf.shape(ids)[1]
        tokens = inputs["token_embeddings"] if "token_embeddings" in inputs else self._look_up(inputs)
        segments = tf.gather(backbone.segment_embedding.embeddings.value, inputs["segment_ids"])
        positions = backbone.position_embedding.position_embeddings.value[:length]
        summed = tf.reshape(tokens + segments + positions, [-1, self.width])
        hidden = _norm(summed, backbone.embeddings_layer_norm)
        if training and backbone.dropout:
            hidden = tf.nn.experimental.stateless_dropout(hidden, backbone.dropout, seed=self._seed())
        return tf.reshape(tf.cast(hidden, self.dtype), [tf.shape(ids)[0], length, self.width])

    def _blocks(self, hidden: Any, mask: Any, first: int, last: int, training: bool) -> Any:
        shape = tf.shape(hidden)
        bias = (1.0 - tf.cast(mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -1e9
        flat = tf.reshape(hidden, [-1, self.width])
        for block in self.backbone.transformer_layers[first:last]:
            mixed = self._attend(block._self_attention_layer, flat, shape, bias, training)
            norm = block._self_attention_layer_norm
            flat = self._add_norm(mixed, block._self_attention_layer._output_dense, flat, norm, training)
            widen, narrow = block._feedforward_intermediate_dense, block._feedforward_output_dense
            inner = tf.matmul(flat, self._cast(widen.kernel))
            if training:
                inner = bias_gelu(inner, widen.bias.value)
            else:
                inner = tf.nn.gelu(tf.nn.bias_add(inner, self._cast(widen.bias)), approximate=True)
            output = tf.matmul(inner, self._cast(narrow.kernel))
            flat = self._add_norm(output, narrow, flat, block._feedforward_layer_norm, training)
        return tf.reshape(flat, shape)

    def _attend(self, attention: Any, flat: Any, shape: Any, bias: Any, training: bool) -> Any:
        """Attention up to and with the output's matrix product, its bias not yet added."""
        width, heads = self.width, self.heads
        projections = (attention._query_dense, attention._key_dense, attention._value_dense)
        kernel = tf.concat([self._cast(p.kernel, width, width) for p in projections], axis=1)
        offset = tf.concat([self._cast(p.bias, width) for p in projections], axis=0)
        joint = tf.nn.bias_add(tf.matmul(flat, kernel), offset)
        joint = tf.reshape(joint, [shape[0], shape[1], 3, heads, width // heads])
        query, key, value = tf.unstack(tf.transpose(joint, [2, 0, 3, 1, 4]))
        scores = tf.matmul(query * (width // heads) ** -0.5, key, transpose_b=True)
        mixed = tf.matmul(self._attention_weights(scores, bias, training), value)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, width])
        return tf.matmul(mixed, self._cast(attention._output_dense.kernel, width, width))

    def _attention_weights(self, scores: Any, bias: Any, training: bool) -> Any:
        rate = float(self.backbone.dropout) if training else 0.0
        if training and self.fuse_attention:
            return masked_softmax(scores, bias, rate=rate, seed=self._seed() if rate else None)
        weights = tf.nn.softmax(tf.cast(scores, tf.float32) + bias)
        if rate:
            weights = tf.nn.experimental.stateless_dropout(weights, rate, seed=self._seed())
        return tf.cast(weights, self.dtype)

    def _add_norm(self, output: Any, dense: Any, residual: Any, norm: Any, training: bool) -> Any:
        if not training:
            output = tf.nn.bias_add(output, self._cast(dense.bias))
            return tf.cast(_norm(tf.cast(residual + output, tf.float32), norm), self.dtype)
        rate = float(self.backbone.dropout)
        return dropout_add_norm(
            output,
            dense.bias.value,
            residual,
            norm.gamma.value,
            norm.beta.value,
            epsilon=norm.epsilon,
            rate=rate,
            seed=self._seed() if rate else None,
        )


def _norm(inputs: Any, layer: Any) -> Any:
    mean, variance = tf.nn.moments(inputs, axes=[-1], keepdims=True)
    return tf.nn.batch_normalization(
        inputs, mean, variance, layer.beta.value, layer.gamma.value, layer.epsilon
    )
