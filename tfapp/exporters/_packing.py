"""Metadata and files inside a .tflite file, where runtimes pass over them and MediaPipe Tasks looks."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from tfapp.errors import WeightsError
from tfapp.exporters._metadata_schema import read_metadata, write_metadata

_ENTRY = b"TFLITE_METADATA"
_FILE_IDENTIFIER = b"TFL3"
# Whatever was aligned within the file stays so when it moves by a multiple of this.
_ALIGNMENT = 64
# Fields of a model by their numbers in TFLite's schema.
_VERSION, _BUFFERS, _METADATA = 0, 4, 6
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """What a .tflite file carries beside its model.

    Attributes:
        metadata: The fields of ``ModelMetadata``; see `write_metadata`.
        files: The content of each file by its name.
    """

    metadata: dict[str, Any]
    files: dict[str, bytes]

    @property
    def labels_name(self) -> str | None:
        """Name of the file that names the classes, by the metadata of the first output."""
        return _first_name(self._part("output_tensor_metadata").get("associated_files"), "TENSOR_AXIS_LABELS")

    @property
    def vocabulary_name(self) -> str | None:
        """Name of the file that an input's tokenizer reads, by the metadata of the inputs."""
        for unit in self._subgraph.get("input_process_units", ()):
            for options in unit.get("options", {}).values():
                return _first_name(options.get("vocab_file"), "VOCABULARY")
        return _first_name(self._subgraph.get("associated_files"), "VOCABULARY")

    @property
    def _subgraph(self) -> dict[str, Any]:
        return next(iter(self.metadata.get("subgraph_metadata", ())), {})

    def _part(self, name: str) -> dict[str, Any]:
        return next(iter(self._subgraph.get(name, ())), {})


def _first_name(files: Any, kind: str) -> str | None:
    return next((file.get("name") for file in files or () if file.get("type") == kind), None)


def input_names(content: bytes) -> list[str]:
    """Lists the inputs of a model by the names of its one signature.

    Args:
        content: A ``.tflite`` file.

    Returns:
        The names, in the order of the model's input tensors.
    """
    model = schema.Model.GetRootAs(content, 0)
    graph, signature = model.Subgraphs(0), model.SignatureDefs(0)
    given = [signature.Inputs(number) for number in range(signature.InputsLength())]
    names = {item.TensorIndex(): item.Name().decode("utf-8") for item in given}
    return [names[graph.Inputs(number)] for number in range(graph.InputsLength())]


def pack(content: bytes, metadata: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """Puts metadata and files into a model.

    The model itself stays byte for byte what it was; a new head is written before it, which also points to
    the metadata, and the files follow it as a zip archive, not compressed.

    Args:
        content: A ``.tflite`` file without metadata.
        metadata: The fields of ``ModelMetadata``.
        files: The content of each file by its name.

    Returns:
        The new file, the same for the same arguments.

    Raises:
        WeightsError: When the model is so large that its weights lie outside of its flatbuffer.
    """
    stream = io.BytesIO(_with_metadata(content, write_metadata(metadata)))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()


def unpack(content: bytes) -> Packed:
    """Reads what `pack` put into a model; the model is not looked at.

    Args:
        content: A ``.tflite`` file.

    Returns:
        Metadata and files.

    Raises:
        ValueError: When there is no metadata, or it or the archive is damaged.
    """
    try:
        model = schema.Model.GetRootAs(content, 0)
        entries = [model.Metadata(number) for number in range(model.MetadataLength())]
        numbers = [entry.Buffer() for entry in entries if entry.Name() == _ENTRY]
        data = model.Buffers(numbers[0]).DataAsNumpy().tobytes() if numbers else b""
    except (struct.error, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"it is no .tflite file ({error})") from error
    if not data:
        raise ValueError("there is no metadata in it")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("the files in it are compressed, which MediaPipe does not read")
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"the files in it cannot be read ({error})") from error
    return Packed(read_metadata(data), files)


def _with_metadata(content: bytes, metadata: bytes) -> bytearray:
    model = schema.Model.GetRootAs(content, 0)
    if any(model.Buffers(number).Offset() > 1 for number in range(model.BuffersLength())):
        raise WeightsError("the model is too large for one flatbuffer: it can hold no metadata.")
    # Builders work from the end to the front, and references point towards the end: so the old file becomes
    # the end of the new one, and nothing in it changes.
    builder = flatbuffers.Builder(len(content) + len(metadata) + 65536)
    _put(builder, content, alignment=_ALIGNMENT)
    start = builder.Offset()
    old = Table(content, struct.unpack_from("<I", content)[0])

    def children(number: int) -> list[int]:
        """Where the tables of a vector of the old file lie."""
        at = old.Offset(4 + 2 * number)
        length = old.VectorLen(at) if at else 0
        return [start - old.Indirect(old.Vector(at) + 4 * row) for row in range(length)]

    buffers, entries = children(_BUFFERS), children(_METADATA)
    builder.StartVector(1, len(metadata), 16)
    _put(builder, metadata, alignment=1)
    data = builder.EndVector()
    schema.BufferStart(builder)
    schema.BufferAddData(builder, data)
    buffers.append(schema.BufferEnd(builder))
    name = builder.CreateString(_ENTRY)
    schema.MetadataStart(builder)
    schema.MetadataAddName(builder, name)
    schema.MetadataAddBuffer(builder, len(buffers) - 1)
    entries.append(schema.MetadataEnd(builder))
    replaced = {_BUFFERS: _vector(builder, buffers), _METADATA: _vector(builder, entries)}

    table = old.Pos - old.Get(number_types.SOffsetTFlags, old.Pos)
    fields = (old.Get(number_types.VOffsetTFlags, table) - 4) // 2
    builder.StartObject(max(fields, _METADATA + 1))
    for number in range(max(fields, _METADATA + 1)):
        at = old.Offset(4 + 2 * number)
        if number == _VERSION:
            builder.PrependUint32Slot(number, model.Version(), 0)
        elif number in replaced:
            builder.PrependUOffsetTRelativeSlot(number, replaced[number], 0)
        elif at:
            builder.PrependUOffsetTRelativeSlot(number, start - old.Indirect(old.Pos + at), 0)
    builder.Finish(builder.EndObject(), _FILE_IDENTIFIER)
    written: bytearray = builder.Output()
    return written


def _put(builder: flatbuffers.Builder, content: bytes, *, alignment: int) -> None:
    """Copies bytes in front of what is written, so that they begin at a multiple of ``alignment``."""
    builder.Prep(alignment, len(content))
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content


def _vector(builder: flatbuffers.Builder, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())
