"""A convolutional network's forward pass for training on CPUs, with frozen batch normalisation folded away.

Batch normalisation that stays in inference mode multiplies and shifts every channel by constants. Keras does
so in passes over the whole map of features, forward and backward. Here the factor goes into the convolution's
kernel, which is far smaller, and the shift into its bias; the gradient flows through the folded kernel to the
very variable of the Keras layer, which stays what is saved and exported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from tfapp.models.classifier import Classifier
from tfapp.models.convolution import convolution_unit
from tfapp.models.fused import FusedParts
from tfapp.models.image_blocks import graph_nodes, normalised_convolutions
from tfapp.models.kernels import on_one_processor


def folded_parts(
    model: Classifier,
    train: Literal["all", "head"] | int,
    *,
    precision: str,
    beside: keras.layers.Layer | None = None,
) -> FusedParts | None:
    """Makes the folded forward pass of an image classifier.

    Args:
        model: The classifier.
        train: Where to cut, as in `Classifier.split`.
        precision: ``"float32"``, or ``"mixed_bfloat16"`` for convolutions in bfloat16. All other layers
            compute in their own dtype policy; see `tfapp.training.precision.computing_in`.
        beside: Another layer from features to logits, whose answer stands behind the head's own.

    Returns:
        The parts; None where they would not be used: nothing to fold, a GPU or TPU, several replicas. There
        Keras's own forward pass serves.
    """
    names = list(model.input)
    nodes = graph_nodes(list(model.input.values()), model.features)
    if not on_one_processor() or len(names) != 1 or not _foldable(nodes, model.features):
        return None
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    name, pixels, features = names[0], model.input[names[0]], model.features

    def head(values: Any, training: bool) -> Any:
        return model.head_logits(values, beside=beside, training=training)

    if train == "all":
        everything = _forward(pixels, features, dtype)
        return FusedParts(
            None, lambda inputs, training=False: head(everything(inputs[name], training), training), pad_to=1
        )
    crossing, below = ("features", features) if train == "head" else ("hidden", model.blocks[-train].enters)
    lower = _forward(pixels, below, dtype)
    upper = _forward(below, features, dtype)

    def frozen(inputs: Any, training: bool = False) -> dict[str, Any]:
        return {crossing: tf.cast(lower(inputs[name], False), tf.float32)}

    def trained(inputs: Any, training: bool = False) -> Any:
        return head(upper(inputs[crossing], training), training)

    return FusedParts(frozen, trained, pad_to=1)


def folded_inference(model: Classifier, *, precision: str) -> Callable[[Any], Any] | None:
    """Makes the pass in inference mode of a classifier whose batch normalisation is trained.

    Its gradients with respect to the pixels are right, those with respect to the variables are not: it
    serves attacks.

    Args:
        model: The classifier.
        precision: As in `folded_parts`.

    Returns:
        ``inputs -> logits``, or None where it would not be used, as in `folded_parts`.
    """
    nodes = graph_nodes(list(model.input.values()), model.features)
    units = _foldable(nodes, model.features, trained=True)
    if not on_one_processor() or len(model.input) != 1 or not units:
        return None
    name, pixels = next(iter(model.input.items()))
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    forward = _forward(pixels, model.features, dtype, trained=True)
    return lambda inputs: model.head_logits(forward(inputs[name], False), training=False)


@dataclass(frozen=True)
class _Unit:
    """A convolution, the frozen batch normalisation behind it, and the activation behind that.

    Attributes:
        convolution: The layer.
        norm: The layer.
        activation: ``"linear"``, ``"relu"`` or ``"relu6"``.
        passed: The nodes of the last two.
        output: What the last of them gives.
    """

    convolution: keras.layers.Layer
    norm: keras.layers.BatchNormalization
    activation: str
    passed: tuple[Any, ...]
    output: keras.KerasTensor


def _foldable(nodes: Sequence[Any], output: keras.KerasTensor, *, trained: bool = False) -> dict[int, _Unit]:
    """Finds convolutions whose output only a batch normalisation reads, frozen or ``trained`` too."""
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    activations = {
        id(node.input_tensors[0]): node for node in nodes if _activation(node.operation) != "linear"
    }
    units = {}
    for node, follows in normalised_convolutions(nodes, output):
        layer = node.operation
        dilated = isinstance(layer, keras.layers.DepthwiseConv2D) and layer.dilation_rate != (1, 1)
        if (follows.operation.trainable and not trained) or dilated:
            continue
        between = follows.output_tensors[0]
        last = activations.get(id(between)) if readers[id(between)] == 1 and between is not output else None
        units[id(node)] = _Unit(
            convolution=layer,
            norm=follows.operation,
            activation="linear" if last is None else _activation(last.operation),
            passed=(follows,) if last is None else (follows, last),
            output=between if last is None else last.output_tensors[0],
        )
    return units


def _activation(layer: Any) -> str:
    if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu:
        return "relu"
    if isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value, "linear")
    return "linear"


def _forward(
    start: keras.KerasTensor, end: keras.KerasTensor, dtype: tf.DType, *, trained: bool = False
) -> Callable[[Any, bool], Any]:
    """Makes the function from one tensor of a functional graph to another."""
    nodes = graph_nodes([start], end)
    units = _foldable(nodes, end, trained=trained)
    passed = {id(node) for unit in units.values() for node in unit.passed}

    def forward(inputs: Any, training: bool) -> Any:
        values: dict[int, Any] = {id(start): tf.cast(inputs, start.dtype)}
        for node in nodes:
            if id(node) in passed:
                continue
            if id(node) in units:
                entering = tf.cast(values[id(node.input_tensors[0])], dtype)
                values[id(units[id(node)].output)] = _convolve(units[id(node)], entering)
            else:
                outputs = _call(node, values, training)
                values |= zip(map(id, node.output_tensors), keras.tree.flatten(outputs), strict=True)
        return values[id(end)]

    return forward


def _call(node: Any, values: Mapping[int, Any], training: bool) -> Any:
    arguments, options = node.arguments.fill_in(values)
    if getattr(node.operation, "_call_has_training_arg", False):
        options["training"] = training
    return node.operation(*arguments, **options)


def _convolve(unit: _Unit, inputs: Any) -> Any:
    """Computes a unit in the precision of ``inputs``."""
    layer, norm = unit.convolution, unit.norm
    scale = tf.math.rsqrt(norm.moving_variance.value + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma.value
    shift = -norm.moving_mean.value * scale
    if norm.center:
        shift += norm.beta.value
    scale, shift = tf.stop_gradient(scale), tf.stop_gradient(shift)
    if layer.use_bias:
        shift += layer.bias.value * scale
    shift = tf.cast(shift, inputs.dtype)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    factors = tf.reshape(scale, layer.kernel.shape[2:]) if depthwise else scale
    kernel = tf.cast(layer.kernel.value * factors, inputs.dtype)
    options = {
        "strides": [1, *layer.strides, 1],
        "padding": layer.padding.upper(),
        "dilations": [1, *layer.dilation_rate, 1],
    }
    return convolution_unit(inputs, kernel, shift, unit.activation, options, depthwise=depthwise)
