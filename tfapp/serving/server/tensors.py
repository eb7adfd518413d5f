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

_FIELDS: dict[tf.DType, str] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
}
_MOST_RANK = 8
_MOST_SPREAD = 1 << 25
"""Most bytes that are filled in where values are left out: a small message must not become gigabytes."""

_POINTER = 8
"""Bytes that an array takes for a string beside the string's own."""

_SLICE = 1 << 15
"""Values read at a time, so that other threads get their turn."""

Described = tuple[tf.DType, tuple[int, ...]]
"""The type and the shape of a tensor."""


def described(array: npt.NDArray[Any]) -> Described:
    """Tells the type and the shape of an array.

    Args:
        array: Numbers, or an array of `bytes` objects.

    Returns:
        Both.
    """
    return tf.string if array.dtype == object else tf.dtypes.as_dtype(array.dtype), array.shape


def claimed(tensor: Any, name: str) -> Described:
    """Tells what type and shape a tensor of a message claims to have, and reads none of its values.

    Args:
        tensor: A ``TensorProto``.
        name: The input's name, for messages.

    Returns:
        Both.

    Raises:
        RequestError: When no tensor has such.
    """
    if tensor.tensor_shape.unknown_rank:
        raise invalid(f"input {name}: the tensor's rank is not given")
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if len(shape) > _MOST_RANK or any(size < 0 for size in shape):
        raise invalid(f"input {name}: {list(shape)[:_MOST_RANK]} is not the shape of a tensor")
    try:
        return tf.dtypes.as_dtype(tensor.dtype), shape
    except TypeError as error:
        raise invalid(f"input {name}: {tensor.dtype} is no type of tensors") from error


def array_of(tensor: Any, name: str) -> npt.NDArray[Any]:
    """Reads a tensor of a message.

    As in TensorFlow, the last of too few values stands for all that follow, and zero or the empty string
    where there is none.

    Args:
        tensor: A ``TensorProto``.
        name: The input's name, for messages.

    Returns:
        The array; strings as an array of `bytes` objects.

    Raises:
        RequestError: When its parts contradict each other, or what is left out takes more than 32 MiB.
    """
    kind, shape = claimed(tensor, name)
    count = math.prod(shape)
    if kind == tf.string:
        if tensor.tensor_content:
            raise invalid(f"input {name}: strings are taken in string_val, not in tensor_content")
        texts = list(tensor.string_val)
        last = texts[-1] if texts else b""
        missing = _missing(len(texts), shape, name, size=len(last) + _POINTER)
        return as_strings(texts + [last] * missing).reshape(shape)
    if kind not in _FIELDS:
        raise invalid(f"input {name}: tensors of this type are not taken")
    dtype = np.dtype(kind.as_numpy_dtype)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * dtype.itemsize:
            raise invalid(f"input {name}: the tensor's content does not fill the shape {list(shape)}")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    given = getattr(tensor, _FIELDS[kind])
    missing = _missing(len(given), shape, name, size=dtype.itemsize)
    values = np.zeros(count, dtype)
    try:
        for start in range(0, len(given), _SLICE):
            read = np.array(given[start : start + _SLICE], dtype)
            values[start : start + len(read)] = read
    except OverflowError as error:
        raise invalid(f"input {name}: a value does not fit the tensor's type") from error
    if given and missing:
        values[len(given) :] = values[len(given) - 1]
    return values.reshape(shape)


def _missing(count: int, shape: tuple[int, ...], name: str, *, size: int) -> int:
    """Counts the values of a shape that are left out, of ``size`` bytes each."""
    missing = math.prod(shape) - count
    if missing < 0:
        raise invalid(f"input {name}: the tensor has {count} values for the shape {list(shape)}")
    if missing * size > _MOST_SPREAD:
        raise invalid(
            f"input {name}: the tensor has {count} values for the shape {list(shape)}; "
            f"at most {_MOST_SPREAD} bytes may be left out: send all values"
        )
    return missing


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
        getattr(message, _FIELDS[dtype]).extend(array.ravel().tolist())
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
