"""Where an image network can be cut: the tensors that everything behind them depends on, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras

from tfapp.models.classifier import Block

# The beginnings of layer names that stay the same within a block: ResNet, MobileNetV2, EfficientNet.
_FAMILIES = re.compile(r"(conv\d_block\d+|expanded_conv|block_\d+|block\d+[a-z])_")
_KERNEL_RANK = 2


@dataclass(frozen=True)
class _Segment:
    """The operations between two neighbouring cuts, and the tensor that they give."""

    operations: tuple[Any, ...]
    gives: keras.KerasTensor

    @property
    def merges(self) -> bool:
        return len(self.operations) > 1

    @property
    def family(self) -> str | None:
        match = _FAMILIES.match(self.operations[-1].name)
        return match[1] if match else None

    @property
    def weighs(self) -> bool:
        return any(len(v.shape) >= _KERNEL_RANK for op in self.operations for v in getattr(op, "weights", ()))


def normalised_convolutions(nodes: Sequence[Any], output: keras.KerasTensor) -> list[tuple[Any, Any]]:
    """Finds the convolutions of a graph whose output only a batch normalisation reads.

    Args:
        nodes: From `graph_nodes`.
        output: Where the graph ends.

    Returns:
        The nodes of both.
    """
    readers: dict[int, list[Any]] = {id(output): [None]}
    for node in nodes:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    pairs = []
    for node in nodes:
        layer, following = node.operation, readers.get(id(node.output_tensors[0]), [None])
        norm: Any = getattr(following[0], "operation", None)
        if (
            len(following) == 1
            and type(norm) is keras.layers.BatchNormalization
            and norm.axis in (-1, 3)
            and type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and layer.data_format == "channels_last"
            and getattr(layer, "groups", 1) == 1  # TensorFlow has no kernel for groups on CPUs
        ):
            pairs.append((node, following[0]))
    return pairs


def image_blocks(backbone: keras.Model) -> list[Block]:
    """Finds the blocks of an image network.

    A block of a ResNet, MobileNetV2 or EfficientNet of keras.applications is known by its layers' names.
    In other networks a block is what lies between two places where branches meet, and in those without
    branches a layer with a kernel; layers without kernels go with what is below them.

    Args:
        backbone: Functional network from one image tensor to one tensor of features.

    Returns:
        The blocks from bottom to top. The first layers, up to the first block, are in none of them; the
        list is empty where there is no cut, or where a layer is called twice.
    """
    segments = _segments(backbone)
    families = [segment.family for segment in segments]
    branching = any(segment.merges for segment in segments)
    closing: list[int] = []
    for index, segment in enumerate(segments):
        if any(families):
            closes = families[index] is not None and families[index] not in families[index + 1 :]
        else:
            closes = segment.merges if branching else segment.weighs
        if closes:
            closing.append(index)
    # Activations, normalisation and pooling belong to the block below.
    ends = []
    for index in closing:
        while index + 1 < len(segments) and not any(families) and not segments[index + 1].weighs:
            index += 1
        ends.append(index)
    if any(families):
        first = next(index for index, family in enumerate(families) if family)
        ends = [first - 1, *ends]
    if ends and any(segment.weighs for segment in segments[ends[-1] + 1 :]):
        ends.append(len(segments) - 1)
    elif ends:
        ends[-1] = len(segments) - 1
    blocks = []
    for below, above in pairwise(ends):
        if below < 0:
            continue
        layers = [op for segment in segments[below + 1 : above + 1] for op in segment.operations]
        blocks.append(Block(tuple(op for op in layers if isinstance(op, keras.Layer)), segments[below].gives))
    return blocks


def _segments(backbone: keras.Model) -> list[_Segment]:
    """Cuts a network wherever only one tensor is needed by everything behind."""
    nodes = graph_nodes(backbone.inputs, backbone.outputs[0])
    if len({id(node.operation) for node in nodes}) < len(nodes):
        return []
    last_use: dict[int, int] = {}
    for position, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_use[id(tensor)] = position
    segments = []
    # `reach` is the last place where anything computed before a node is used.
    begin, reach = 0, max(last_use.get(id(tensor), 0) for tensor in backbone.inputs)
    for position, node in enumerate(nodes):
        if reach <= position and len(node.output_tensors) == 1:
            operations = tuple(other.operation for other in nodes[begin : position + 1])
            segments.append(_Segment(operations, node.output_tensors[0]))
            begin = position + 1
        reach = max(reach, *(last_use.get(id(tensor), 0) for tensor in node.output_tensors))
    return segments


def graph_nodes(inputs: Sequence[keras.KerasTensor], output: keras.KerasTensor) -> list[Any]:
    """Lists the calls of a functional graph's operations, as Keras keeps them.

    Args:
        inputs: Where the graph begins.
        output: Where it ends.

    Returns:
        Keras's nodes, each after those that it needs.
    """
    ordered: list[Any] = []
    seen: set[int] = {id(tensor) for tensor in inputs}
    stack = [(output, False)]
    while stack:
        tensor, expanded = stack.pop()
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if expanded:
            ordered.append(node)
        elif id(tensor) not in seen:
            seen |= {id(output) for output in node.output_tensors}
            stack.append((tensor, True))
            stack += [(needed, False) for needed in node.input_tensors]
    return ordered
