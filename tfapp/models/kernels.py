"""Fused kernels of a transformer block: each computes in float32 between tensors of any float type.

XLA compiles a kernel anew for every number of rows, which takes a good part of a second: only the kernels
that save several passes over large tensors are here, and batches come in few widths (`WIDTH_STEP`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tensorflow as tf

_SQRT_2_OVER_PI = 0.7978845608028654
_CUBIC = 0.044715

LONG_TEXT = 64
"""From this many tokens on, attention weights are large enough for a kernel of their own to pay."""

WIDTH_STEP = 4
"""Batches are padded to a multiple of this many tokens, so that kernels are compiled for few widths."""


def on_one_processor() -> bool:
    """Whether this process computes on one CPU alone: on no GPU or TPU, and in one replica."""
    # The build of TensorFlow for TPUs, which shows a TPU_SYSTEM, compiles nothing for the processor.
    if any(map(tf.config.list_logical_devices, ("GPU", "TPU", "TPU_SYSTEM"))):
        return False
    return not tf.distribute.has_strategy() or len(tf.distribute.get_strategy().extended.worker_devices) == 1


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return compiled


def _keep_mask(shape: Any, rate: float, seed: Any) -> Any:
    """1 / (1 - rate) where a number is kept and 0 where it is dropped, the same for the same seed.

    Each number's place is hashed with the seed by two rounds of multiply and shift: unlike a counter-based
    generator this vectorises, and dropout asks for no more than well-mixed bits.
    """
    place = tf.bitcast(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), tf.uint32)
    words = tf.bitcast(seed, tf.uint32)
    bits = _mixed(_mixed(tf.bitwise.bitwise_xor(place, words[0])) + words[1])
    threshold = tf.constant(round(rate * 2**32), tf.uint32)
    return tf.where(bits >= threshold, 1.0 / (1.0 - rate), 0.0)


def _mixed(bits: Any) -> Any:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        ) * tf.constant(factor, tf.uint32)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(15, tf.uint32)))


@_compiled
def _gelu_forward(inputs: Any, bias: Any) -> Any:
    x = tf.cast(inputs, tf.float32) + bias
    t = tf.tanh(_SQRT_2_OVER_PI * x * (1.0 + _CUBIC * x * x))
    return tf.cast(0.5 * x * (1.0 + t), inputs.dtype)


@_compiled
def _gelu_backward(inputs: Any, bias: Any, upstream: Any) -> Any:
    x = tf.cast(inputs, tf.float32) + bias
    square = x * x
    t = tf.tanh(_SQRT_2_OVER_PI * x * (1.0 + _CUBIC * square))
    slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * _SQRT_2_OVER_PI * (1.0 + 3.0 * _CUBIC * square)
    gradient = tf.cast(upstream, tf.float32) * slope
    return tf.cast(gradient, inputs.dtype), tf.reduce_sum(gradient, axis=0)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def bias_gelu(inputs: Any, bias: Any) -> Any:
    """Adds a bias and applies GELU in its tanh form.

    Args:
        inputs: ``(rows, width)``.
        bias: float32 ``(width,)``.

    Returns:
        ``(rows, width)`` in the type of ``inputs``.

    Reference:
        Hendrycks and Gimpel 2016, Gaussian Error Linear Units, arXiv:1606.08415.
    """
    return _gelu_forward(inputs, bias), lambda upstream: _gelu_backward(inputs, bias, upstream)


def dropout_add_norm(
    inputs: Any, bias: Any, residual: Any, gamma: Any, beta: Any, *, epsilon: float, rate: float, seed: Any
) -> Any:
    """Computes ``layer_norm(residual + dropout(inputs + bias))``.

    Args:
        inputs: ``(rows, width)``.
        bias: float32 ``(width,)``.
        residual: ``(rows, width)`` in the type of ``inputs``.
        gamma: float32 ``(width,)``.
        beta: float32 ``(width,)``.
        epsilon: Added to the variance.
        rate: Share of numbers dropped, 0 up to 1.
        seed: int32 ``(2,)``; None where ``rate`` is 0.

    Returns:
        ``(rows, width)`` in the type of ``inputs``.

    Reference:
        Ba et al. 2016, Layer Normalization, arXiv:1607.06450.
    """
    random = tf.zeros([2], tf.int32) if seed is None else seed

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def apply(inputs: Any, bias: Any, residual: Any, gamma: Any, beta: Any) -> Any:
        forward, backward = _norm_kernels(rate, epsilon)
        outputs, normal, scale = forward(inputs, bias, residual, gamma, beta, random)
        return outputs, lambda upstream: backward(normal, scale, gamma, random, upstream)

    return apply(inputs, bias, residual, gamma, beta)


@cache
def _norm_kernels(rate: float, epsilon: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    @_compiled
    def forward(inputs: Any, bias: Any, residual: Any, gamma: Any, beta: Any, seed: Any) -> Any:
        branch = tf.cast(inputs, tf.float32) + bias
        if rate:
            branch = branch * _keep_mask(tf.shape(inputs), rate, seed)
        summed = tf.cast(residual, tf.float32) + branch
        centred = summed - tf.reduce_mean(summed, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)
        normal = centred * scale
        return tf.cast(normal * gamma + beta, inputs.dtype), tf.cast(normal, inputs.dtype), scale

    @_compiled
    def backward(normal: Any, scale: Any, gamma: Any, seed: Any, upstream: Any) -> Any:
        kind = upstream.dtype
        normal, upstream = tf.cast(normal, tf.float32), tf.cast(upstream, tf.float32)
        slope = upstream * gamma
        summed = slope - tf.reduce_mean(slope, axis=-1, keepdims=True)
        summed = (summed - normal * tf.reduce_mean(slope * normal, axis=-1, keepdims=True)) * scale
        branch = summed * _keep_mask(tf.shape(summed), rate, seed) if rate else summed
        return (
            tf.cast(branch, kind),
            tf.reduce_sum(branch, axis=0),
            tf.cast(summed, kind),
            tf.reduce_sum(upstream * normal, axis=0),
            tf.reduce_sum(upstream, axis=0),
        )

    return forward, backward


def masked_softmax(scores: Any, bias: Any, *, rate: float, seed: Any) -> Any:
    """Computes ``dropout(softmax(scores + bias))`` over the last axis.

    Args:
        scores: ``(batch, heads, queries, keys)``.
        bias: float32 ``(batch, 1, 1, keys)``, very negative for padding.
        rate: Share of weights dropped, 0 up to 1.
        seed: int32 ``(2,)``; None where ``rate`` is 0.

    Returns:
        Attention weights in the shape and type of ``scores``.
    """
    random = tf.zeros([2], tf.int32) if seed is None else seed
    forward, backward = _softmax_kernels(rate)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def apply(scores: Any) -> Any:
        outputs, weights = forward(scores, bias, random)
        return outputs, lambda upstream: backward(weights, random, upstream)

    return apply(scores)


@cache
def _softmax_kernels(rate: float) -> tuple[Callable[..., Any], Callable[..., Any]]:
    @_compiled
    def forward(scores: Any, bias: Any, seed: Any) -> Any:
        weights = tf.nn.softmax(tf.cast(scores, tf.float32) + bias)
        kept = weights * _keep_mask(tf.shape(weights), rate, seed) if rate else weights
        return tf.cast(kept, scores.dtype), tf.cast(weights, scores.dtype)

    @_compiled
    def backward(weights: Any, seed: Any, upstream: Any) -> Any:
        kind = upstream.dtype
        weights, slope = tf.cast(weights, tf.float32), tf.cast(upstream, tf.float32)
        if rate:
            slope = slope * _keep_mask(tf.shape(slope), rate, seed)
        gradient = (slope - tf.reduce_sum(slope * weights, axis=-1, keepdims=True)) * weights
        return tf.cast(gradient, kind)

    return forward, backward
