"""The files that a server reads beside the versions: batching.config and models.config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfapp.errors import ReleaseError
from tfapp.serving.server.settings import Batching

BATCHING_FILE = "serving/batching.config"
MODELS_FILE = "serving/models.config"


def _batching_parameters() -> Any:
    """Makes TensorFlow Serving's message `BatchingParameters`, which its Python package leaves out."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tfapp/batching_parameters.proto",
        package="tfapp.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, name, wrapper in (
        (1, "max_batch_size", "Int64Value"),
        (2, "batch_timeout_micros", "Int64Value"),
        (3, "max_enqueued_batches", "Int64Value"),
        (4, "num_batch_threads", "Int64Value"),
        (5, "thread_pool_name", "StringValue"),
        (8, "enable_large_batch_splitting", "BoolValue"),
        (9, "max_execution_batch_size", "Int64Value"),
    ):
        message.field.add(
            name=name,
            number=number,
            label=kinds.LABEL_OPTIONAL,
            type=kinds.TYPE_MESSAGE,
            type_name=f".google.protobuf.{wrapper}",
        )
    repeated, optional = kinds.LABEL_REPEATED, kinds.LABEL_OPTIONAL
    message.field.add(name="allowed_batch_sizes", number=6, label=repeated, type=kinds.TYPE_INT64)
    message.field.add(name="pad_variable_length_inputs", number=7, label=optional, type=kinds.TYPE_BOOL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tfapp.serving.BatchingParameters"))


def read_batching(path: Path) -> Batching:
    """Reads a ``batching.config`` as TensorFlow Serving takes it.

    Args:
        path: A text file in the format of protocol buffers.

    Returns:
        What it says; what it leaves out is as `Batching` has it.

    Raises:
        ReleaseError: When it cannot be read.
        ConfigError: When a size is not possible.
    """
    message = _parsed(path, _batching_parameters()())
    given = {
        entry.name: int(getattr(message, entry.name).value)
        for entry in fields(Batching)
        if message.HasField(entry.name)
    }
    return Batching(**given)


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions are served.

    Attributes:
        kind: ``"latest"``, ``"all"`` or ``"specific"``.
        count: How many of the newest, for ``"latest"``.
        versions: Which, for ``"specific"``.
        labels: Versions by label.
    """

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


def read_policy(path: Path, name: str) -> VersionPolicy:
    """Reads what a ``models.config`` says of one model.

    Args:
        path: A text file in the format of protocol buffers.
        name: The model's name.

    Returns:
        Its versions and labels; the newest version where the file does not name the model.

    Raises:
        ReleaseError: When it cannot be read.
    """
    message = _parsed(path, model_server_config_pb2.ModelServerConfig())
    for entry in message.model_config_list.config:
        if entry.name != name:
            continue
        policy, labels = entry.model_version_policy, dict(entry.version_labels)
        chosen = policy.WhichOneof("policy_choice")
        if chosen == "all":
            return VersionPolicy("all", labels=labels)
        if chosen == "specific":
            return VersionPolicy("specific", versions=tuple(policy.specific.versions), labels=labels)
        return VersionPolicy("latest", count=max(1, policy.latest.num_versions), labels=labels)
    return VersionPolicy()


def _parsed(path: Path, message: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ReleaseError(
            f"{path} cannot be read ({error}); write it anew with `tfapp tune-serving`, or delete it."
        ) from error
