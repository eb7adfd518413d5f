"""Message classes made at run time from a short description of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}
_KNOWN = (any_pb2, wrappers_pb2)


def make_messages(file: str, messages: Mapping[str, str]) -> dict[str, Any]:
    """Makes message classes of proto3.

    Enumerations that nobody writes as text are given as ``int32``: on the wire both are the same.

    Args:
        file: A name for the descriptions, with which errors name them.
        messages: For each message by its full name (``package.Message``, nested ones after their parents),
            its fields, a line each: ``number type name``, ``number repeated type name``,
            ``number optional type name`` or ``number map<key,type> name``. A type is a scalar's name, a
            message's full name, or ``enum<NAME,...>`` with the names of 0, 1, ...

    Returns:
        The classes by full name.
    """
    pool = descriptor_pool.DescriptorPool()
    for known in _KNOWN:
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for package, made in _by_package(messages).items():
        description = descriptor_pb2.FileDescriptorProto(
            name=f"tfapp/{file}/{package}.proto", package=package, syntax="proto3"
        )
        description.dependency.extend(known.DESCRIPTOR.name for known in _KNOWN)
        description.dependency.extend(f"tfapp/{file}/{other}.proto" for other in _earlier(messages, package))
        holders: dict[str, Any] = {}
        for name in made:
            parent, _, short = name.rpartition(".")
            siblings = holders[parent].nested_type if parent in holders else description.message_type
            holders[name] = siblings.add(name=short)
            _add_fields(holders[name], name, messages[name])
        pool.Add(description)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in messages}


def _by_package(messages: Mapping[str, str]) -> dict[str, list[str]]:
    packages: dict[str, list[str]] = {}
    for name in messages:
        package = ".".join(part for part in name.split(".") if part.islower())
        packages.setdefault(package, []).append(name)
    return packages


def _earlier(messages: Mapping[str, str], package: str) -> Iterator[str]:
    for other in _by_package(messages):
        if other == package:
            return
        yield other


def _add_fields(message: Any, full_name: str, lines: str) -> None:
    for line in filter(None, map(str.strip, lines.splitlines())):
        number, *kind_words, name = line.split()
        kind = " ".join(kind_words)
        field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
        if kind.startswith("repeated "):
            field.label = _FIELD.LABEL_REPEATED
            _set_type(field, kind.removeprefix("repeated "))
        elif kind.startswith("map<"):
            key, value = kind.removeprefix("map<").removesuffix(">").split(",")
            entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            for place, (part, part_kind) in enumerate((("key", key), ("value", value)), start=1):
                _set_type(entry.field.add(name=part, number=place, label=_FIELD.LABEL_OPTIONAL), part_kind)
            field.label = _FIELD.LABEL_REPEATED
            field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{full_name}.{entry.name}"
        elif kind.startswith("optional "):
            # What proto3 knows of an optional scalar is whether it stands in a choice of its own.
            field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
            _set_type(field, kind.removeprefix("optional "))
        elif kind.startswith("enum<"):
            enumeration = message.enum_type.add(name=name.title().replace("_", ""))
            for place, value in enumerate(kind.removeprefix("enum<").removesuffix(">").split(",")):
                enumeration.value.add(name=value, number=place)
            field.type, field.type_name = _FIELD.TYPE_ENUM, f".{full_name}.{enumeration.name}"
        else:
            _set_type(field, kind)


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"
