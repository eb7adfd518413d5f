"""The features of a serialized tf.train.Example, as places in its bytes: nothing is copied.

Reference: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tfapp.errors import DataError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KINDS = {1: "bytes", 2: "float", 3: "int64"}
_SINGLE = {"bytes": _BYTES, "float": _FIXED32, "int64": _VARINT}


@dataclass
class Feature:
    """One feature of an Example.

    Attributes:
        kind: ``"bytes"``, ``"float"`` or ``"int64"``; empty for a feature without a list.
        values: The numbers; of bytes their places ``(start, end)``.
    """

    kind: str = ""
    values: list[Any] = field(default_factory=list)


def find_features(data: bytes, place: str) -> dict[str, Feature]:
    """Finds the features of an Example.

    Args:
        data: The serialized ``tf.train.Example``.
        place: Where it stands, for messages.

    Returns:
        The features by name.

    Raises:
        DataError: If the bytes are no such message.
    """
    try:
        features: dict[str, Feature] = {}
        for number, wire, value in _fields(data, 0, len(data)):
            if (number, wire) != (1, _BYTES):
                continue
            for entry_number, entry_wire, entry in _fields(data, *value):
                if (entry_number, entry_wire) == (1, _BYTES):
                    name, feature = _entry(data, *entry)
                    features[name] = feature
    except (ValueError, IndexError, struct.error) as error:
        raise DataError(f"{place} is no serialized tf.train.Example; write such records.") from error
    return features


def _entry(data: bytes, start: int, end: int) -> tuple[str, Feature]:
    name, feature = "", Feature()
    for number, wire, value in _fields(data, start, end):
        if (number, wire) == (1, _BYTES):
            name = data[slice(*value)].decode("utf-8")
        elif (number, wire) == (2, _BYTES):
            for kind, list_wire, place in _fields(data, *value):
                if kind in _KINDS and list_wire == _BYTES:
                    feature = Feature(_KINDS[kind], list(_values(data, place[0], place[1], _KINDS[kind])))
    return name, feature


def _values(data: bytes, start: int, end: int, kind: str) -> Iterator[Any]:
    for number, wire, value in _fields(data, start, end):
        if number != 1:
            continue
        if wire not in (_BYTES, _SINGLE[kind]):
            raise ValueError(f"a list of {kind} values holds something else")
        if wire != _BYTES:
            yield struct.unpack("<f", value)[0] if kind == "float" else _signed(value)
        elif kind == "bytes":
            yield value
        elif kind == "float":
            yield from struct.unpack(f"<{(value[1] - value[0]) // 4}f", data[slice(*value)])
        else:
            position, stop = value
            while position < stop:
                number_value, position = _varint(data, position)
                yield _signed(number_value)


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
    """Yields number, wire type and value of the fields of a message; of bytes their place."""
    position = start
    while position < end:
        key, position = _varint(data, position)
        wire = key & 7
        value: Any
        if wire == _VARINT:
            value, position = _varint(data, position)
        elif wire == _BYTES:
            length, position = _varint(data, position)
            value = (position, position + length)
            position += length
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
            value = data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire}")
        if position > end:
            raise ValueError("a field goes beyond its message")
        yield key >> 3, wire, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number has too many bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
