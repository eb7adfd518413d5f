"""Tensors of strings and numbers, to the wire and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.wire.messages import Example, TensorProto

DT_FLOAT, DT_DOUBLE, DT_INT32, DT_STRING, DT_INT64 = 1, 2, 3, 7, 9
_NUMBERS: dict[int, tuple[str, Any]] = {
    DT_FLOAT: ("float_val", np.float32),
    DT_DOUBLE: ("double_val", np.float64),
    DT_INT32: ("int_val", np.int32),
    DT_INT64: ("int64_val", np.int64),
}


def string_tensor(values: Sequence[bytes]) -> Any:
    """Makes a tensor of strings.

    Args:
        values: The strings.

    Returns:
        A ``TensorProto`` of shape ``(len(values),)``.
    """
    tensor = TensorProto(dtype=DT_STRING, string_val=values)
    tensor.tensor_shape.dim.add(size=len(values))
    return tensor


def read_tensor(tensor: Any) -> npt.NDArray[Any]:
    """Reads a tensor of numbers or strings.

    Args:
        tensor: A ``TensorProto``.

    Returns:
        Its array; strings are bytes in an array of objects.

    Raises:
        ValueError: When its type is none of these, or it holds another number of values than its shape says.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype == DT_STRING:
        values: npt.NDArray[Any] = np.array([*tensor.string_val, None], object)[:-1]
    elif tensor.dtype in _NUMBERS:
        field, kind = _NUMBERS[tensor.dtype]
        content = tensor.tensor_content
        values = np.frombuffer(content, kind) if content else np.array(getattr(tensor, field), kind)
    else:
        raise ValueError(f"a tensor of type {tensor.dtype}")
    missing = math.prod(shape) - len(values)
    if missing > 0 and len(values):  # the last value stands for all that follow
        values = np.concatenate([values, np.repeat(values[-1:], missing)])
    return values.reshape(shape)


def example(feature: str, value: bytes) -> bytes:
    """Makes a serialized ``tf.Example`` with one string in it.

    Args:
        feature: The feature's name.
        value: The string.

    Returns:
        The message's bytes.
    """
    made = Example()
    made.features.feature[feature].bytes_list.value.append(value)
    return bytes(made.SerializeToString())
