"""Requests in JSON as TensorFlow Serving takes them: rows (``instances``), columns (``inputs``), examples."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.serving.server.request_checks import type_name
from tfapp.serving.server.signatures import Arrays, Signature
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


@dataclass(frozen=True)
class PredictRequest:
    """A request to ``:predict``.

    Attributes:
        signature: The signature that it names.
        inputs: Arrays by name.
        by_row: Whether it gave rows, and wants rows back.
    """

    signature: Signature
    inputs: Arrays
    by_row: bool


def parse(body: bytes) -> dict[str, Any]:
    """Reads a body.

    Args:
        body: What the client sent.

    Returns:
        The JSON object.

    Raises:
        RequestError: When it is none.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: the document is nested too deeply") from error
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: dict[str, Any]) -> str:
    """Reads the signature that a request names.

    Args:
        document: What `parse` answered.

    Returns:
        Its name; empty for the default.

    Raises:
        RequestError: When it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def predict_request(document: dict[str, Any], find: Callable[[str], Signature]) -> PredictRequest:
    """Reads a request to ``:predict``.

    Args:
        document: What `parse` answered.
        find: Finds a signature by its name.

    Returns:
        The request.

    Raises:
        RequestError: When it is wrong.
    """
    signature = find(signature_name(document))
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {_shown(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
        return PredictRequest(signature, _by_row(instances, signature), by_row=True)
    if "inputs" in document:
        return PredictRequest(signature, _by_column(document["inputs"], signature), by_row=False)
    raise invalid("Missing 'inputs' or 'instances' key")


def check_examples(document: dict[str, Any]) -> None:
    """Refuses what is no request to ``:classify`` or ``:regress``.

    Args:
        document: What `parse` answered.

    Raises:
        RequestError: When it is wrong.
    """
    signature_name(document)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {_shown(document)} When method is classify, key 'examples' is expected and was "
            "not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {_shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {_shown(document)} 'examples' value is an empty array")
    for example in [*examples, *([document["context"]] if "context" in document else [])]:
        if not isinstance(example, dict):
            raise invalid(f"Example must be JSON object but got JSON {_kind(example)}")


def _by_row(instances: list[Any], signature: Signature) -> Arrays:
    if not _is_object(instances[0]):
        if len(signature.inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        for place, item in enumerate(instances):
            if _is_object(item):
                raise invalid(f"Expecting value/list but got object at item {place} of input list")
        ((alias, info),) = signature.inputs.items()
        return {alias: _rows(instances, info, "")}
    for place, item in enumerate(instances):
        if not _is_object(item):
            raise invalid(f"Expecting object but got list at item {place} of input list")
        for alias in item:
            if alias not in signature.inputs:
                raise invalid(
                    f"Failed to process element: {place} key: {alias} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {alias}"
                )
        if item.keys() != signature.inputs.keys():
            raise invalid(
                f"Failed to process element: {place} of 'instances' list. JSON object: {_shown(item)} keys "
                f"must be equal to: {','.join(signature.inputs)}"
            )
    return {
        alias: _rows([item[alias] for item in instances], info, f" key: {alias}")
        for alias, info in signature.inputs.items()
    }


def _rows(values: list[Any], info: Any, key: str) -> npt.NDArray[Any]:
    try:
        return tensor_of(values, tf.dtypes.as_dtype(info.dtype))
    except RequestError as error:
        raise _in_row(values, info, key) or error from error


def _in_row(values: list[Any], info: Any, key: str) -> RequestError | None:
    """Says which row is to blame, in TensorFlow Serving's words."""
    shape: tuple[int, ...] | None = None
    for place, value in enumerate(values):
        where = f"Failed to process element: {place}{key} of 'instances' list. Error: INVALID_ARGUMENT: "
        try:
            array = tensor_of(value, tf.dtypes.as_dtype(info.dtype))
        except RequestError as error:
            return invalid(where + error.message)
        if shape is not None and array.shape != shape:
            given, first = (f"[{','.join(map(str, sizes))}]" for sizes in (array.shape, shape))
            return invalid(f"{where}Expecting shape {first} but got: {given}")
        shape = array.shape
    return None


def _by_column(inputs: Any, signature: Signature) -> Arrays:
    if not _is_object(inputs):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as "
                "per tensorinfo_map"
            )
        inputs = dict.fromkeys(signature.inputs, inputs)
    for alias in signature.inputs:
        if alias not in inputs:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
    return {
        alias: tensor_of(inputs[alias], tf.dtypes.as_dtype(info.dtype))
        for alias, info in signature.inputs.items()
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


def _uneven(flat: list[Any], level: int, size: int) -> RequestError:
    for item in flat:
        if not isinstance(item, list):
            return invalid(
                f"JSON Value: {_shown(item)} found at incorrect level: {level + 1} in the JSON DOM. Expected "
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
        return as_strings([_string(item) for item in flat])
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


def _string(item: Any) -> bytes:
    if type(item) is str:
        try:
            return item.encode()
        except UnicodeEncodeError as error:
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    if _is_base64(item):
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
        raise invalid(f"JSON Value: {_shown(item)} not formatted correctly for base64 data")
    raise _wrong_type(item, tf.string)


def _wrong_type(item: Any, dtype: tf.DType) -> RequestError:
    return invalid(
        f"JSON Value: {_shown(item)} Type: {_kind(item)} is not of expected type: {type_name(dtype)}"
    )


def _is_base64(item: Any) -> bool:
    return type(item) is dict and len(item) == 1 and isinstance(item.get("b64"), str)


def _is_object(item: Any) -> bool:
    return type(item) is dict and not _is_base64(item)


def _kind(item: Any) -> str:
    return str(item) if isinstance(item, bool) else _KINDS[type(item)]


def _shown(value: Any) -> str:
    """Writes a value for a message, cut to a length."""
    written: list[str] = []
    length = 0
    for piece in json.JSONEncoder(ensure_ascii=True).iterencode(value):
        written.append(piece[:_SHOWN])
        length += len(piece)
        if length > _SHOWN:
            break
    return "".join(written)[:_SHOWN]
