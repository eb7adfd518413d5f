"""Answers in JSON as TensorFlow Serving writes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.serving.server.classification import CLASSES, SCORES
from tfapp.serving.server.signatures import Arrays

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def predictions(outputs: Arrays) -> bytes:
    """Writes the answer to a request that gave rows.

    Args:
        outputs: Arrays by name, with the rows along their first dimension.

    Returns:
        ``{"predictions": [...]}``: an object a row, or its bare value where there is only one output.
    """
    columns = {name: [_value(row, name) for row in array] for name, array in outputs.items()}
    if len(columns) == 1:
        (rows,) = columns.values()
    else:
        keys = [f"{json.dumps(name)}: " for name in columns]
        rows = [
            "{" + ", ".join(key + value for key, value in zip(keys, row, strict=True)) + "}"
            for row in zip(*columns.values(), strict=True)
        ]
    return ('{"predictions": [' + ", ".join(rows) + "]}").encode()


def columns(outputs: Arrays) -> bytes:
    """Writes the answer to a request that gave columns.

    Args:
        outputs: Arrays by name.

    Returns:
        ``{"outputs": {...}}``, or the bare values where there is only one output.
    """
    written = {name: _value(array, name) for name, array in outputs.items()}
    if len(written) == 1:
        (values,) = written.values()
    else:
        values = "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in written.items()) + "}"
    return ('{"outputs": ' + values + "}").encode()


def results(outputs: Arrays) -> bytes:
    """Writes the answer to a request to classify.

    Args:
        outputs: ``classes``, the names of classes ``(rows, num_classes)``, and their ``scores``.

    Returns:
        ``{"results": [[["name", score], ...], ...]}``.
    """
    rows = [
        ", ".join(
            f"[{label}, {score}]"
            for label, score in zip(_leaves(names, CLASSES), _leaves(scores, SCORES), strict=True)
        )
        for names, scores in zip(outputs[CLASSES], outputs[SCORES], strict=True)
    ]
    return ('{"results": [' + ", ".join(f"[{row}]" for row in rows) + "]}").encode()


def error(message: str) -> bytes:
    """Writes an error.

    Args:
        message: What is wrong.

    Returns:
        ``{"error": "..."}``.
    """
    return json.dumps({"error": message}).encode()


def _value(value: Any, name: str) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        if value.ndim == 1:
            return "[" + ", ".join(_leaves(value, name)) + "]"
        return "[" + ", ".join(_value(row, name) for row in value) + "]"
    return _leaves(np.array([value], getattr(value, "dtype", object)), name)[0]


def _leaves(values: npt.NDArray[Any], name: str) -> list[str]:
    if values.dtype == object:
        if name.endswith("_bytes"):
            return [json.dumps({"b64": base64.b64encode(value).decode()}) for value in values]
        return [json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False) for value in values]
    if values.dtype == bool:
        return ["true" if value else "false" for value in values]
    # The shortest digits that give the same number of its type back.
    written: list[str] = values.astype(str).tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [_NOT_FINITE.get(text, text) for text in written]
    return written
