"""JSON values as tensors, with TensorFlow Serving's words for what is none."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.serving.server.request_checks import type_name
from tfapp.serving.server.status import RequestError, invalid
from tfapp.serving.server.tensors import as_strings

_MOST_RANK = 8
_SHOWN = 256
_KINDS: dict[type, str] = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


def tensor_of(value: Any, dtype: tf.DType) -> npt.NDArray[Any]:
    """Makes a tensor of a JSON value.

    Args:
        value: A scalar, or lists in lists; strings also as ``{"b64": ...}``.
        dtype: The tensor's type.

    Returns:
        The array; strings as an array of `bytes` objects.

    Raises:
        RequestError: When the value is not of that type, or its lists are not of equal lengths.
    """
    shape: list[int] = []
    flat = [value]
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if len(shape) > _MOST_RANK:
            raise invalid(f"Encountered list at unexpected level: {_MOST_RANK} expected < {_MOST_RANK}")
        if set(map(type, flat)) != {list} or set(map(len, flat)) != {shape[-1]}:
            raise _uneven(flat, len(shape) - 1, shape[-1])
        flat = list(itertools.chain.from_iterable(flat))
        if not flat:
            break
        first = flat[0]
    if any(type(item) is list for item in flat):
        raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _leaves(flat, dtype).reshape(shape)


def string_of(item: Any) -> bytes:
    """Makes bytes of a JSON value.

    Args:
        item: A string, or ``{"b64": ...}``.

    Returns:
        The string in UTF-8, or what is encoded.

    Raises:
        RequestError: When it is neither.
    """
    if type(item) is str:
        try:
            return item.encode()
        except UnicodeEncodeError as error:
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    if is_base64(item):
        try:
            return base64.b64decode(item["b64"], altchars=None, validate=True)
        except (binascii.Error, ValueError):
            pass
        try:  # the alphabet for addresses, and no padding, which TensorFlow Serving takes too
            text = item["b64"].rstrip("=").replace("-", "+").replace("_", "/")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise invalid("Unable to base64 decode") from error
    if type(item) is dict:
        raise invalid(f"JSON Value: {shown(item)} not formatted correctly for base64 data")
    raise _wrong_type(item, tf.string)


def _uneven(flat: list[Any], level: int, size: int) -> RequestError:
    for item in flat:
        if not isinstance(item, list):
            return invalid(
                f"JSON Value: {shown(item)} found at incorrect level: {level + 1} in the JSON DOM. Expected "
                f"at level: {level + 1}"
            )
        if len(item) != size:
            break
    return invalid(
        f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {size}"
    )


def _leaves(flat: list[Any], dtype: tf.DType) -> npt.NDArray[Any]:
    types = set(map(type, flat))
    if dtype == tf.string:
        return as_strings([string_of(item) for item in flat])
    allowed: set[type] = {bool} if dtype == tf.bool else {int, float} if dtype.is_floating else {int}
    if types <= allowed:
        try:
            with np.errstate(over="ignore"):
                return np.array(flat, dtype.as_numpy_dtype)
        except OverflowError:
            pass
    least, most = (dtype.min, dtype.max) if dtype.is_integer else (-np.inf, np.inf)
    for item in flat:
        if type(item) not in allowed or (dtype.is_integer and not least <= item <= most):
            raise _wrong_type(item, dtype)
    raise invalid(f"a number is too large for {type_name(dtype)}")


def _wrong_type(item: Any, dtype: tf.DType) -> RequestError:
    return invalid(
        f"JSON Value: {shown(item)} Type: {kind_of(item)} is not of expected type: {type_name(dtype)}"
    )


def is_base64(item: Any) -> bool:
    """Says whether a JSON value stands for bytes.

    Args:
        item: The value.

    Returns:
        True for an object of the one key ``b64`` with a string.
    """
    return type(item) is dict and len(item) == 1 and isinstance(item.get("b64"), str)


def kind_of(item: Any) -> str:
    """Names a JSON value's type as TensorFlow Serving does.

    Args:
        item: The value.

    Returns:
        Such as ``"String"``.
    """
    return str(item) if isinstance(item, bool) else _KINDS[type(item)]


def shown(value: Any) -> str:
    """Writes a value for a message, cut to a length.

    Args:
        value: Any JSON value.

    Returns:
        JSON, or the beginning of it.
    """
    written: list[str] = []
    length = 0
    for piece in json.JSONEncoder(ensure_ascii=True).iterencode(value):
        written.append(piece[:_SHOWN])
        length += len(piece)
        if length > _SHOWN:
            break
    return "".join(written)[:_SHOWN]
