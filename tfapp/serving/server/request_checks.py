"""What a request's tensors must be before anything is computed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from tfapp.data.image_headers import header_of, problem_text
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.settings import Limits
from tfapp.serving.server.signatures import Signature, words_of
from tfapp.serving.server.status import invalid
from tfapp.serving.server.tensors import Described


def check_tensors(
    model: LoadedModel, signature: Signature, inputs: Mapping[str, Described], limits: Limits
) -> int:
    """Refuses tensors that the signature does not take.

    Args:
        model: The model.
        signature: Its signature.
        inputs: The type and the shape of each tensor, by name.
        limits: What requests may ask for.

    Returns:
        How many rows there are.

    Raises:
        RequestError: When a tensor is missing, unknown, or of the wrong type or shape; when there are more
            rows than the limits allow, or longer ones than the model reads.
    """
    if inputs.keys() != signature.inputs.keys():
        sent, wanted = set(inputs), set(signature.inputs)
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(wanted))}}}). "
            f"Sent extra: {{{','.join(sorted(sent - wanted))}}}. "
            f"Missing but required: {{{','.join(sorted(wanted - sent))}}}."
        )
    rows: set[int] = set()
    lengths: dict[int, set[int]] = {}
    for alias, info in signature.inputs.items():
        given, shape = inputs[alias]
        dtype = tf.dtypes.as_dtype(info.dtype)
        if given != dtype:
            raise invalid(f"Expects arg[{alias}] to be {type_name(dtype)} but {type_name(given)} is provided")
        sizes = [dimension.size for dimension in info.tensor_shape.dim]
        fits = len(sizes) == len(shape) and all(
            size in (-1, given) for size, given in zip(sizes, shape, strict=True)
        )
        if not fits:
            wanted_shape = ",".join("?" if size == -1 else str(size) for size in sizes)
            raise invalid(f"input {alias} must have the shape [{wanted_shape}], not {list(shape)}")
        rows.add(shape[0])
        for axis, size in enumerate(sizes):
            if size == -1:
                lengths.setdefault(axis, set()).add(shape[axis])
    if len(rows) != 1 or any(len(found) != 1 for found in lengths.values()):
        raise invalid("the inputs do not have the same numbers of rows and columns")
    (count,) = rows
    if count == 0 or any(0 in found for found in lengths.values()):
        raise invalid("the request has no rows")
    check_rows(count, limits)
    longest = max((max(found) for axis, found in lengths.items() if axis), default=0)
    most = model.max_length or limits.pixels
    if longest > most:
        raise invalid(f"the rows have {longest} columns; the model reads at most {most}")
    return count


def check_rows(count: int, limits: Limits) -> None:
    """Refuses too many rows.

    Args:
        count: How many there are.
        limits: What requests may ask for.

    Raises:
        RequestError: When there are more.
    """
    if count > limits.rows:
        raise invalid(f"the request has {count} rows; at most {limits.rows} are taken: send several requests")


def check_features(
    model: LoadedModel, signature: Signature, inputs: Mapping[str, npt.NDArray[Any]], limits: Limits
) -> None:
    """Refuses texts and images that are too large, also those that come inside of a ``tf.Example``.

    Args:
        model: The model.
        signature: Its signature.
        inputs: Arrays by name, which `check_tensors` has let through.
        limits: What requests may ask for.

    Raises:
        RequestError: When one is too large.
    """
    if not signature.of_strings:
        return
    ((alias, values),) = inputs.items()
    if model.feature == "text":
        for row, value in enumerate(values):
            if len(value) > limits.text_bytes:
                raise invalid(f"{alias} {row} has {len(value)} bytes; at most {limits.text_bytes} are taken")
    else:
        problem = _image_problem(limits.pixels, model.feature, encoded=alias == model.feature)
        for row, value in enumerate(values):
            # TensorFlow's own copy of the bytes, read up to the image's size and no further.
            try:
                said = problem(tf.constant(value)).numpy()
            except tf.errors.InvalidArgumentError as error:  # no Example, or libjpeg cannot read the header
                raise invalid(f"{alias} {row}: {words_of(error)}") from error
            if said:
                raise invalid(f"{alias} {row}: {said.decode()}")


@functools.cache
def _image_problem(pixels: int, feature: str, *, encoded: bool) -> Any:
    def problem(value: tf.Tensor) -> tf.Tensor:
        features = {feature: tf.io.FixedLenFeature([], tf.string)}
        contents = value if encoded else tf.io.parse_single_example(value, features)[feature]
        header = header_of(contents, max_pixels=pixels)
        text = problem_text(header, max_pixels=pixels)
        return tf.where(header.problem > 0, text, "")

    return tf.function(problem, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def type_name(dtype: tf.DType) -> str:
    """Names a type as TensorFlow's messages do.

    Args:
        dtype: The type.

    Returns:
        Its name, such as ``"float"`` for float32.
    """
    name = str(dtype.name)
    return {"float32": "float", "float64": "double"}.get(name, name)
