"""The format of the metadata in a .tflite file: written from plain dicts, and read back into them.

It is a flatbuffer of the tables below. The package that wrote it before is no longer kept, and MediaPipe's
own classes come with all of MediaPipe; nested dicts and lists are all that is needed.

Reference:
    metadata_schema.fbs of MediaPipe Tasks, whose order of fields the tables keep.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

IDENTIFIER = b"M001"

# Fields in the order of the schema; None keeps the place of one that is not written.
_TABLES: dict[str, dict[str, str | None]] = {
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
        "associated_files": "[AssociatedFile]",
        "input_process_units": "[ProcessUnit]",
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": None,
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "Content": {"content_properties": "ContentProperties"},
    "ImageProperties": {"color_space": "ColorSpaceType", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint", "height": "uint"},
    "FeatureProperties": {},
    "ProcessUnit": {"options": "ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "BertTokenizerOptions": {"vocab_file": "[AssociatedFile]"},
    "Stats": {"max": "[float]", "min": "[float]"},
    "AssociatedFile": {"name": "string", "description": "string", "type": "AssociatedFileType"},
}
# A union takes two fields: which table it is, from 1 on, and the table.
_UNIONS: dict[str, tuple[str, ...]] = {
    "ContentProperties": ("FeatureProperties", "ImageProperties"),
    "ProcessUnitOptions": (
        "NormalizationOptions",
        "ScoreCalibrationOptions",
        "ScoreThresholdingOptions",
        "BertTokenizerOptions",
    ),
}
_ENUMS: dict[str, tuple[str, ...]] = {
    "ColorSpaceType": ("UNKNOWN", "RGB", "GRAYSCALE"),
    "AssociatedFileType": (
        "UNKNOWN",
        "DESCRIPTIONS",
        "TENSOR_AXIS_LABELS",
        "TENSOR_VALUE_LABELS",
        "TENSOR_AXIS_SCORE_CALIBRATION",
        "VOCABULARY",
    ),
}


def write_metadata(model_metadata: Mapping[str, Any]) -> bytes:
    """Writes metadata.

    Args:
        model_metadata: The fields of ``ModelMetadata`` by their names in the schema: strings, enums by name,
            dicts for tables, lists; for a union a dict with one entry, the table's fields by its name.

    Returns:
        The flatbuffer, the same for the same fields.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, "ModelMetadata", model_metadata), IDENTIFIER)
    return bytes(builder.Output())


def read_metadata(content: bytes) -> dict[str, Any]:
    """Reads metadata back.

    Args:
        content: The flatbuffer.

    Returns:
        What `write_metadata` takes, without fields that are empty or not known here.

    Raises:
        ValueError: When it is no such flatbuffer, or is damaged.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError("it is no metadata of version 1")
    try:
        return _read(Table(content, struct.unpack_from("<I", content)[0]), "ModelMetadata")
    except (struct.error, LookupError, TypeError, OverflowError) as error:
        raise ValueError(f"the metadata cannot be read ({error})") from error


def _slots(name: str) -> list[tuple[int, str, str]]:
    """Number, name and type of each field of a table that is written."""
    slots, number = [], 0
    for field, kind in _TABLES[name].items():
        if kind is not None:
            slots.append((number, field, kind))
        number += 2 if kind in _UNIONS else 1
    return slots


def _write(builder: flatbuffers.Builder, name: str, fields: Mapping[str, Any]) -> int:
    slots = [(number, kind, fields[field]) for number, field, kind in _slots(name) if field in fields]
    # A table's children come before it: it can only point to what is already written.
    made = {
        number: _write_child(builder, kind, value)
        for number, kind, value in slots
        if kind not in _ENUMS and kind != "uint"
    }
    builder.StartObject(max((number for number, _, _ in _slots(name)), default=-1) + 2)
    for number, kind, value in slots:
        if kind in _ENUMS:
            builder.PrependInt8Slot(number, _ENUMS[kind].index(value), 0)
        elif kind == "uint":
            builder.PrependUint32Slot(number, value, 0)
        elif kind in _UNIONS:
            builder.PrependUint8Slot(number, 1 + _UNIONS[kind].index(next(iter(value))), 0)
            builder.PrependUOffsetTRelativeSlot(number + 1, made[number], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, made[number], 0)
    return int(builder.EndObject())


def _write_child(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    if kind == "string":
        return int(builder.CreateString(value))
    if kind == "[float]":
        return int(builder.CreateNumpyVector(np.array(value, np.float32)))
    if kind in _UNIONS:
        ((table, fields),) = value.items()
        return _write(builder, table, fields)
    if not kind.startswith("["):
        return _write(builder, kind, value)
    parts = [_write(builder, kind[1:-1], part) for part in value]
    builder.StartVector(4, len(parts), 4)
    for part in reversed(parts):
        builder.PrependUOffsetTRelative(part)
    return int(builder.EndVector())


def _read(table: Table, name: str) -> dict[str, Any]:
    found = {}
    for number, field, kind in _slots(name):
        value = _read_field(table, number, kind)
        if value is not None:
            found[field] = value
    return found


def _read_field(table: Table, number: int, kind: str) -> Any:
    at = table.Offset(4 + 2 * number)
    if not at:
        return None
    at += table.Pos
    if kind in _ENUMS:
        return _ENUMS[kind][table.Get(number_types.Int8Flags, at)]
    if kind == "uint":
        return table.Get(number_types.Uint32Flags, at)
    if kind == "string":
        return table.String(at).decode("utf-8")
    if kind in _UNIONS:
        name = _UNIONS[kind][table.Get(number_types.Uint8Flags, at) - 1]
        return {name: _read_field(table, number + 1, name)}
    if not kind.startswith("["):
        return _read(Table(table.Bytes, table.Indirect(at)), kind)
    start = table.Vector(at - table.Pos)
    places = range(start, start + 4 * table.VectorLen(at - table.Pos), 4)
    if kind == "[float]":
        return [table.Get(number_types.Float32Flags, place) for place in places]
    return [_read(Table(table.Bytes, table.Indirect(place)), kind[1:-1]) for place in places]
