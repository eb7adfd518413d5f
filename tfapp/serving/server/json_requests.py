"""Requests in JSON as TensorFlow Serving takes them: rows (``instances``), columns (``inputs``), examples."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.example import example_pb2

from tfapp.serving.server.json_tensors import is_base64, kind_of, shown, string_of, tensor_of
from tfapp.serving.server.request_checks import check_rows
from tfapp.serving.server.settings import Limits
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import RequestError, invalid
from tfapp.serving.server.tensors import as_strings


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


class _Uncollected:
    """Keeps Python's collector of cycles from running.

    JSON has no cycles, and to look for them over and over while millions of lists are made takes six times as
    long as to make them. No other thread of Python runs meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_enabled:
                gc.enable()


_UNCOLLECTED = _Uncollected()


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
        with _UNCOLLECTED:
            document = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise invalid("JSON Parse error: the document is nested too deeply") from error
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
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
            f"JSON Value: {shown(document)} not formatted correctly. "
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
                f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
        return PredictRequest(signature, _by_row(instances, signature), by_row=True)
    if "inputs" in document:
        return PredictRequest(signature, _by_column(document["inputs"], signature), by_row=False)
    raise invalid("Missing 'inputs' or 'instances' key")


def examples(document: dict[str, Any], limits: Limits) -> npt.NDArray[Any]:
    """Reads a request to ``:classify`` or ``:regress``.

    Args:
        document: What `parse` answered.
        limits: What requests may ask for.

    Returns:
        Serialized examples, each after what all have in common.

    Raises:
        RequestError: When it is wrong.
    """
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was "
            "not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    check_rows(len(rows), limits)
    return as_strings([context + _example(row) for row in rows])


def _example(item: Any) -> bytes:
    if not isinstance(item, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind_of(item)}")
    example = example_pb2.Example()
    for name, content in item.items():
        string_of(name)  # which refuses what no text can be
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_value(feature, name, value)
    written: bytes = example.SerializeToString()
    return written


def _add_value(feature: Any, name: str, value: Any) -> None:
    value, kind = _typed(name, value)
    before = feature.WhichOneof("kind") or kind
    if kind != before:
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: {before.removesuffix('_list')}"
        )
    getattr(feature, kind).value.append(value)


def _typed(name: str, value: Any) -> tuple[Any, str]:
    if isinstance(value, str) or is_base64(value):
        return string_of(value), "bytes_list"
    if isinstance(value, int) and -(2**63) <= value < 2**63:  # True and False too
        return int(value), "int64_list"
    if isinstance(value, int) and 2**63 <= value < 2**64:
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(value, int | float):
        try:
            return float(value), "float_list"
        except OverflowError as error:
            raise invalid(f"Feature: {name} has a number that is too large") from error
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind_of(value)}")


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
                f"Failed to process element: {place} of 'instances' list. JSON object: {shown(item)} keys "
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


def _is_object(item: Any) -> bool:
    return type(item) is dict and not is_base64(item)
