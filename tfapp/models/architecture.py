"""What a model computes apart from its weights, as a checksum: caches and checkpoints depend on it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras

# Names differ from one building to the next; precision and what is trained are keys of their own.
_PASSING = ("name", "dtype", "trainable", "seed")


def architecture_of(model: keras.Model) -> str:
    """Computes the checksum of a functional model's layers: their types, settings and connections.

    Args:
        model: The model.

    Returns:
        SHA-256 in hexadecimal; the same for models that were built alike, whatever their weights.
    """
    numbers: dict[int, int] = {}
    described = []
    for node in _nodes(model):
        entering = [numbers.get(id(tensor), -1) for tensor in node.input_tensors]
        for tensor in node.output_tensors:
            numbers[id(tensor)] = len(numbers)
        operation = node.operation
        settings = operation.get_config() if isinstance(operation, keras.layers.Layer) else vars(operation)
        plain = {
            key: value for key, value in settings.items() if key not in _PASSING and not key.startswith("_")
        }
        described.append([type(operation).__name__, plain, entering])
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=_word).encode()).hexdigest()


def _nodes(model: keras.Model) -> list[Any]:
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def _word(value: Any) -> str:
    """Names a value that JSON does not know without its address in memory."""
    return getattr(value, "__name__", type(value).__name__)
