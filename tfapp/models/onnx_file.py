"""The convolutions of an ONNX file, read with protobuf alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
)

from tfapp.errors import WeightsError

_FLOAT = 1
_PASSED = ("Cast", "Transpose")
# The fields of onnx.proto that are needed: name, number and type, in lists where they are repeated.
_SCHEMA: dict[str, dict[str, tuple[int, str | list[str]]]] = {
    "Tensor": {
        "dims": (1, ["int64"]),
        "data_type": (2, "int32"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
    },
    "Node": {"input": (1, ["string"]), "output": (2, ["string"]), "op_type": (4, "string")},
    "Graph": {"node": (1, ["Node"]), "initializer": (5, ["Tensor"])},
    "Model": {"graph": (7, "Graph")},
}

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Convolution:
    """A convolution with what is added and multiplied to each of its channels afterwards.

    Attributes:
        kernel: ``(height, width, channels in, channels out)``.
        steps: Operator (``"Add"``, ``"Sub"``, ``"Mul"``) and its constant ``(channels out,)``, in order.
    """

    kernel: Array
    steps: tuple[tuple[str, Array], ...]


def read_onnx_convolutions(path: Path) -> list[Convolution]:
    """Reads the convolutions of an ONNX graph with the constants that scale and shift their channels.

    Args:
        path: The file.

    Returns:
        The convolutions, in the order of the file.

    Raises:
        WeightsError: If the file is damaged, or stores its numbers in another way.
    """
    try:
        graph = _model_class().FromString(path.read_bytes()).graph
        constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Identity" and node.input[0] in constants:
                constants[node.output[0]] = constants[node.input[0]]
        readers = {name: node for node in graph.node for name in node.input}
        found = [
            Convolution(
                constants[node.input[1]].transpose(2, 3, 1, 0), tuple(_steps(node, readers, constants))
            )
            for node in graph.node
            if node.op_type == "Conv"
        ]
    except (message.DecodeError, OSError, KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} cannot be read as ONNX: {error}. Fetch it again.") from error
    if not found:
        raise WeightsError(f"{path} holds no convolutions.")
    return found


def _steps(node: Any, readers: dict[str, Any], constants: dict[str, Array]) -> list[tuple[str, Array]]:
    """Follows a convolution's output as long as constants are added and multiplied to its channels."""
    steps: list[tuple[str, Array]] = []
    while (node := readers[node.output[0]]) is not None:
        if node.op_type in _PASSED:
            continue
        values = [constants[name] for name in node.input if name in constants]
        if node.op_type not in ("Add", "Sub", "Mul") or not values:
            break
        steps.append((node.op_type, values[0].reshape(-1)))
    return steps


def _array(tensor: Any) -> Array:
    if tensor.data_type != _FLOAT:
        raise ValueError(f"{tensor.name} is not float32")
    return np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))


def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tfapp/onnx.proto", package="tfapp.onnx", syntax="proto2")
    for title, fields in _SCHEMA.items():
        kind = file.message_type.add(name=title)
        for name, (number, declared) in fields.items():
            repeated = isinstance(declared, list)
            typename = declared[0] if isinstance(declared, list) else declared
            field = kind.field.add(name=name, number=number, label=3 if repeated else 1)
            if typename in _SCHEMA:
                field.type, field.type_name = field.TYPE_MESSAGE, f".tfapp.onnx.{typename}"
            else:
                field.type = getattr(field, f"TYPE_{typename.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tfapp.onnx.Model"))
