"""Tensors of gRPC messages as numpy arrays and back, with nothing believed that a message claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from tfapp.serving.server.status import invalid

_FIELDS: dict[Any, str] = {
    np.float32: "float_val",
    np.float64: "double_val",
    np.int32: "int_val",
    np.int16: "int_val",
    np.int8: "int_val",
    np.uint8: "int_val",
    np.uint16: "int_val",
    np.int64: "int64_val",
    np.uint32: "uint32_val",
    np.uint64: "uint64_val",
    np.bool_: "bool_val",
}
_MOST_RANK = 8
_MOST_SPREAD = 1 << 24
"""Most values that one value may stand for: a small message must not become gigabytes."""


def array_of(tensor: Any, name: str) -> npt.NDArray[Any]:
    """Reads a tensor of a message.

    Args:
        tensor: A ``TensorProto``.
        name: The input's name, for messages.

    Returns:
        The array; strings as an array of `bytes` objects.

    Raises:
        RequestError: When its parts contradict each other.
    """
    if tensor.tensor_shape.unknown_rank:
        raise invalid(f"input {name}: the tensor's rank is not given")
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if len(shape) > _MOST_RANK or any(size < 0 for size in shape):
        raise invalid(f"input {name}: {list(shape)} is not the shape of a tensor")
    count = math.prod(shape)
    if tensor.dtype == tf.string.as_datatype_enum:
        return _shaped(np.array(list(tensor.string_val), object), shape, name, spread=False)
    try:
        dtype = tf.dtypes.as_dtype(tensor.dtype).as_numpy_dtype
    except (TypeError, KeyError) as error:  # no type at all, or one of values that no array holds
        raise invalid(f"input {name}: {tensor.dtype} is no type of tensors") from error
    if tensor.tensor_content:
        if dtype not in _FIELDS or len(tensor.tensor_content) != count * np.dtype(dtype).itemsize:
            raise invalid(f"input {name}: the tensor's content does not fill the shape {list(shape)}")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    if dtype not in _FIELDS:
        raise invalid(f"input {name}: tensors of this type are not taken")
    try:
        values = np.array(getattr(tensor, _FIELDS[dtype]), dtype)
    except OverflowError as error:
        raise invalid(f"input {name}: a value does not fit the tensor's type") from error
    return _shaped(values, shape, name, spread=True)


def _shaped(values: npt.NDArray[Any], shape: tuple[int, ...], name: str, *, spread: bool) -> npt.NDArray[Any]:
    count = math.prod(shape)
    if len(values) == count:
        return values.reshape(shape)
    # As in TensorFlow, the last of too few numbers stands for all that follow.
    if spread and 1 <= len(values) < count <= _MOST_SPREAD:
        return np.concatenate([values, np.full(count - len(values), values[-1])]).reshape(shape)
    raise invalid(f"input {name}: the tensor has {len(values)} values for the shape {list(shape)}")


def message_of(array: npt.NDArray[Any]) -> Any:
    """Writes an array as a message, as TensorFlow Serving does: values in the field of their type.

    Args:
        array: Numbers, or an array of `bytes` objects.

    Returns:
        A ``TensorProto``.
    """
    if array.dtype == object:
        message = tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum)
        message.string_val.extend(array.ravel().tolist())
    else:
        dtype = tf.dtypes.as_dtype(array.dtype)
        message = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
        getattr(message, _FIELDS[array.dtype.type]).extend(array.ravel().tolist())
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    return message


def as_strings(values: Sequence[bytes]) -> npt.NDArray[Any]:
    """Makes an array of strings that keeps bytes of zero at their ends.

    Args:
        values: The strings.

    Returns:
        An array of objects.
    """
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
