"""A convolution with bias and activation, whose gradients are computed as CPUs do it fastest.

In bfloat16 the gradient of a kernel takes oneDNN's convolution two to seven times as long as the same numbers
take as matrix products, where a kernel has size 1 or maps are small: there it is computed as such. The
gradients of depthwise convolutions take five times as long in bfloat16 as in float32, so they are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda values: values,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
}
"""What may follow a convolution, by name."""

_GRADIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda gradient, _: gradient,
    "relu": lambda gradient, outputs: tf.raw_ops.ReluGrad(gradients=gradient, features=outputs),
    "relu6": lambda gradient, outputs: tf.raw_ops.Relu6Grad(gradients=gradient, features=outputs),
}
# Maps of at most so many positions, and of at least so many channels, that nine matrix products are faster.
_SMALL_MAP = 64
_MANY_CHANNELS = 256


def convolution_unit(
    inputs: Any,
    kernel: Any,
    shift: Any,
    activation: str,
    options: dict[str, Any],
    *,
    depthwise: bool = False,
) -> Any:
    """Computes a convolution, adds a shift to each channel and applies an activation.

    Args:
        inputs: ``(batch, height, width, channels)``, float32 or bfloat16.
        kernel: ``(kernel height, kernel width, channels, channels out)`` of the same type; in a depthwise
            convolution the last is channels out for each channel.
        shift: ``(all channels out,)`` of the same type.
        activation: A key of `ACTIVATIONS`.
        options: ``strides``, ``padding`` and ``dilations`` of `tf.raw_ops.Conv2D`; none of the dilations of a
            depthwise convolution may be more than 1.
        depthwise: Whether every channel is convolved by itself.

    Returns:
        ``(batch, height, width, all channels out)``, differentiable by all three tensors.
    """
    convolve = tf.raw_ops.DepthwiseConv2dNative if depthwise else tf.raw_ops.Conv2D

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def unit(inputs: Any, kernel: Any, shift: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
        values = convolve(input=inputs, filter=kernel, **options)
        outputs = ACTIVATIONS[activation](tf.nn.bias_add(values, shift))

        def gradients(upstream: Any) -> tuple[Any, Any, Any]:
            upstream = _GRADIENTS[activation](upstream, outputs)
            if depthwise:
                below, own = _depthwise_gradients(inputs, upstream, kernel, options)
            else:
                below = _input_gradient(inputs, upstream, kernel, options)
                own = _kernel_gradient(inputs, upstream, kernel, options)
            return below, own, tf.raw_ops.BiasAddGrad(out_backprop=upstream)

        return outputs, gradients

    return unit(inputs, kernel, shift)


def _depthwise_gradients(inputs: Any, upstream: Any, kernel: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    inputs, upstream, precise = (tf.cast(values, tf.float32) for values in (inputs, upstream, kernel))
    below = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(inputs), filter=precise, out_backprop=upstream, **options
    )
    own = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs, filter_sizes=kernel.shape.as_list(), out_backprop=upstream, **options
    )
    return tf.cast(below, kernel.dtype), tf.cast(own, kernel.dtype)


def _halves(inputs: Any, kernel: Any, options: dict[str, Any]) -> bool:
    """Tells whether a convolution of size 1 takes every second row and column of an even map."""
    even = all(side is not None and side % 2 == 0 for side in inputs.shape[1:3])
    return even and tuple(kernel.shape[:2]) == (1, 1) and options["strides"] == [1, 2, 2, 1]


def _input_gradient(inputs: Any, upstream: Any, kernel: Any, options: dict[str, Any]) -> Any:
    if not _halves(inputs, kernel, options):
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, **options
        )
    _, height, width, channels = inputs.shape
    flat = tf.reshape(upstream, [-1, upstream.shape[-1]])
    below = tf.matmul(flat, tf.reshape(kernel, kernel.shape[2:]), transpose_b=True)
    below = tf.reshape(below, [-1, height // 2, 1, width // 2, channels])
    spread = tf.pad(below, [[0, 0], [0, 0], [0, 1], [0, 0], [0, channels]])
    return tf.reshape(spread, [-1, height, width, channels])


def _kernel_gradient(inputs: Any, upstream: Any, kernel: Any, options: dict[str, Any]) -> Any:
    size, plain = tuple(kernel.shape[:2]), options["strides"] == options["dilations"] == [1, 1, 1, 1]
    _, height, width, channels = inputs.shape
    if inputs.dtype == tf.bfloat16:
        if _halves(inputs, kernel, options):
            folded = tf.reshape(inputs, [-1, height // 2, 2, width // 2, 2 * channels])
            return _product(folded[:, :, 0, :, :channels], upstream, kernel)
        if size == (1, 1) and plain:
            return _product(inputs, upstream, kernel)
        small = None not in (height, width) and height * width <= _SMALL_MAP
        many = min(kernel.shape[2:]) >= _MANY_CHANNELS
        if size == (3, 3) and plain and options["padding"] == "SAME" and small and many:
            padded = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
            windows = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
            products = [_product(window, upstream, kernel[:1, :1]) for window in windows]
            return tf.reshape(tf.concat(products, axis=0), kernel.shape)
    return tf.raw_ops.Conv2DBackpropFilter(
        input=inputs, filter_sizes=kernel.shape.as_list(), out_backprop=upstream, **options
    )


def _product(inputs: Any, upstream: Any, kernel: Any) -> Any:
    """The gradient of a kernel of size 1."""
    flat, above = (tf.reshape(values, [-1, values.shape[-1]]) for values in (inputs, upstream))
    return tf.reshape(tf.matmul(flat, above, transpose_a=True), kernel.shape)
