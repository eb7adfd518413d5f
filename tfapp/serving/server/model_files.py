"""The files that a server reads beside the versions: batching.config and models.config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from tensorflow_serving.config import model_server_config_pb2

from tfapp.serving.server.settings import Batching
from tfapp.wire.configs import BatchingParameters, read_config


def read_batching(path: Path, overrules: Mapping[str, int] | None = None) -> Batching:
    """Reads a ``batching.config`` as TensorFlow Serving takes it.

    Args:
        path: A text file in the format of protocol buffers; it need not be there.
        overrules: Fields of `Batching` that stand whatever the file says.

    Returns:
        What both say; what they leave out is as `Batching` has it.

    Raises:
        ReleaseError: When it cannot be read.
        ConfigError: When a size is not possible.
    """
    message = BatchingParameters()
    if path.is_file():
        read_config(path, message)
    given = {
        entry.name: int(getattr(message, entry.name).value)
        for entry in fields(Batching)
        if message.HasField(entry.name)
    }
    return Batching(**{**given, **(overrules or {})})


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
    message = read_config(path, model_server_config_pb2.ModelServerConfig())
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
