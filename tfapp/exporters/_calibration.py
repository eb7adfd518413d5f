"""What is done to a network before it is computed in integers: like ranges of channels, typical images.

An integer tensor has one scale. Where one channel reaches 60 and another 0.6, the second is left with two of
256 steps. A factor on the second, divided out of the next kernels, changes nothing in floating point and
gives the channel its steps back: ReLU, pooling and sums of branches pass positive factors through. And where
one image reaches 60 and all others 6, all others lose nine tenths of their steps to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.models.image_blocks import graph_nodes

_PASSING = (
    keras.layers.Add,
    keras.layers.AveragePooling2D,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
)
_PLAIN = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
# Between nothing (0) and equal ranges (1): a factor also takes steps from the kernels that divide it out.
_STRENGTH = 0.5
_LARGEST = 32.0
_TYPICAL_SHARE = 0.5
_FEWEST_ROWS = 50
_TINY = 1e-30

_Array = npt.NDArray[np.float32]


@dataclass
class _Group:
    """Tensors whose channels have to have the same factors.

    Attributes:
        tensors: All of them.
        makers: Layers whose weights can take the factors.
        takers: Layers whose kernels can divide them out.
        fixed: Whether something else makes or takes one of the tensors.
    """

    tensors: list[Any]
    makers: list[Any] = field(default_factory=list)
    takers: list[Any] = field(default_factory=list)
    fixed: bool = False

    def join(self, other: _Group) -> None:
        self.tensors += other.tensors
        self.makers += other.makers
        self.takers += other.takers
        self.fixed |= other.fixed


def ready_for_integers(model: Any, batches: Iterable[dict[str, Any]]) -> tuple[Any, list[int]]:
    """Makes a copy of a model that loses less when it is computed in integers, and picks rows for its ranges.

    Channels are scaled so that their ranges are more alike: one whose largest value is ``r`` times that of
    its tensor is multiplied by the root of ``1 / r``. What the model answers stays the same but for rounding.
    Only tensors are scaled between whose maker and taker, convolutions, batch normalisation and dense layers,
    stands nothing but ReLU, pooling, padding and sums; other networks are copied as they are.

    Args:
        model: A classifier with ``float32_copy()``.
        batches: Inputs of the model by name, from which ranges are found.

    Returns:
        The copy, and the numbers of the rows to calibrate it by, ascending: the half of all rows whose
        activations are least out of the ordinary, but never fewer than 50 if there are as many.

    Reference:
        Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction,
        arXiv:1906.04721; the root as in Xiao et al. 2023, SmoothQuant, arXiv:2211.10438.
    """
    twin = model.float32_copy()
    nodes = graph_nodes(twin.inputs, twin.outputs[0])
    # These activations become part of what is before them: only what they give is ever an integer tensor.
    inner = {id(t) for node in nodes if _fuses(node.operation) for t in node.input_tensors}
    tensors = [tensor for node in nodes for tensor in node.output_tensors if id(tensor) not in inner]
    peaks = dict(zip(map(id, tensors), _peaks(twin, tensors, batches), strict=True))
    for group in _groups(twin, nodes):
        measured = [peaks[id(tensor)] for tensor in group.tensors if id(tensor) in peaks]
        if group.fixed or not group.makers or not group.takers or not measured:
            continue
        largest = np.max([each.max(axis=0) for each in measured], axis=0)
        shares = np.maximum(largest, _TINY) / max(float(largest.max()), _TINY)
        factors = np.minimum(shares**-_STRENGTH, _LARGEST).astype(np.float32)
        for maker in group.makers:
            _multiply(maker, factors)
        for taker in group.takers:
            taker.kernel.assign(taker.kernel.value / factors[:, np.newaxis])
        for each in measured:
            each *= factors
    return twin, _typical(list(peaks.values()))


def _fuses(layer: Any) -> bool:
    """Tells whether the converter makes an activation part of the operator before it."""
    if isinstance(layer, keras.layers.Activation):
        return layer.activation in (keras.activations.relu, keras.activations.relu6)
    return isinstance(layer, keras.layers.ReLU) and not layer.negative_slope


def _peaks(model: keras.Model, tensors: Sequence[Any], batches: Iterable[dict[str, Any]]) -> list[_Array]:
    """The largest absolute value of each channel of each tensor in each row, ``(rows, channels)`` each."""
    function = keras.Function(model.inputs, list(tensors))

    @tf.function(reduce_retracing=True, autograph=False)  # type: ignore[untyped-decorator]
    def largest(inputs: list[Any]) -> list[Any]:
        values = [tf.cast(value, tf.float32) for value in function(inputs)]
        return [tf.reduce_max(tf.abs(v), axis=list(range(1, v.shape.rank - 1))) for v in values]

    given = [[value.numpy() for value in largest([batch[t.name] for t in model.inputs])] for batch in batches]
    return [np.concatenate(values) for values in zip(*given, strict=True)]


def _typical(peaks: Sequence[_Array]) -> list[int]:
    """Picks the rows that reach least far beyond what is usual, in the tensor where they reach farthest."""
    reach = np.stack([np.maximum(each.max(axis=1), _TINY) for each in peaks])
    excess = (reach / np.median(reach, axis=1, keepdims=True)).max(axis=0)
    kept = min(len(excess), max(_FEWEST_ROWS, round(len(excess) * _TYPICAL_SHARE)))
    return sorted(np.argsort(excess, kind="stable")[:kept].tolist())


def _groups(model: keras.Model, nodes: Sequence[Any]) -> list[_Group]:
    """Finds which tensors' channels hang together, and what makes and takes them."""
    groups: dict[int, _Group] = {}

    def group_of(tensor: Any) -> _Group:
        return groups.setdefault(id(tensor), _Group([tensor]))

    for tensor in (*model.inputs, *model.outputs):
        group_of(tensor).fixed = True
    calls: dict[int, int] = {}
    for node in nodes:
        calls[id(node.operation)] = calls.get(id(node.operation), 0) + 1
    for node in nodes:
        layer, taken, made = node.operation, node.input_tensors, node.output_tensors
        if _passes(layer) and len({tensor.shape[-1] for tensor in (*taken, *made)}) == 1:
            for tensor in (*taken[1:], *made):
                first, second = group_of(taken[0]), group_of(tensor)
                if first is not second:
                    first.join(second)
                    groups |= dict.fromkeys(map(id, second.tensors), first)
            continue
        for group in map(group_of, taken):
            group.takers.append(layer)
            group.fixed |= calls[id(layer)] > 1 or not _plain(layer)
        for group in map(group_of, made):
            group.makers.append(layer)
            group.fixed |= calls[id(layer)] > 1 or not _scalable(layer)
    return list({id(group): group for group in groups.values()}.values())


def _passes(layer: Any) -> bool:
    """Tells whether a layer gives a positive multiple of its output for that multiple of its input."""
    if isinstance(layer, keras.layers.Activation):
        return layer.activation in (keras.activations.linear, keras.activations.relu)
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and not layer.threshold  # a slope below 0 does no harm
    return type(layer) in _PASSING and getattr(layer, "data_format", "channels_last") == "channels_last"


def _plain(layer: Any) -> bool:
    """Tells whether a layer has one kernel, whose last but one axis is that of the channels it takes."""
    ungrouped = getattr(layer, "groups", 1) == 1
    return type(layer) in _PLAIN and ungrouped and getattr(layer, "data_format", None) != "channels_first"


def _scalable(layer: Any) -> bool:
    """Tells whether the channels that a layer gives can be scaled by its weights."""
    if type(layer) is keras.layers.BatchNormalization:
        return bool(layer.scale and layer.center and layer.axis in (-1, 3))
    passing = (
        layer.activation in (keras.activations.linear, keras.activations.relu) if _plain(layer) else False
    )
    return passing and type(layer) is not keras.layers.DepthwiseConv2D


def _multiply(layer: Any, factors: _Array) -> None:
    if isinstance(layer, keras.layers.BatchNormalization):
        scaled = [layer.gamma, layer.beta]
    else:
        scaled = [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel]
    for variable in scaled:
        variable.assign(variable.value * factors)
