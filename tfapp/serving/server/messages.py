"""Messages that both protocols answer: the status of versions and the signatures of a model."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.status import Code, RequestError, invalid
from tfapp.serving.server.versions import Versions

_UNKNOWN = 2


def model_status(versions: Versions, name: str, version: int | None = None, label: str | None = None) -> Any:
    """Tells what became of the versions of a model.

    Args:
        versions: The versions.
        name: The model's name.
        version: One version, or None for all.
        label: A label in place of a version.

    Returns:
        A ``GetModelStatusResponse``.

    Raises:
        RequestError: When there is no such model or version.
    """
    if not name:
        raise invalid("Missing model name in request.")
    if label is not None:
        if name != versions.name or label not in versions.labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        version = versions.labels[label]
    known = versions.states if name == versions.name else {}
    if version is not None and version not in known:
        raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
    if not known:
        raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for number in sorted(known, reverse=True) if version is None else [version]:
        state = known[number]
        entry = response.model_version_status.add(version=number, state=state.state)
        entry.status.error_code = _UNKNOWN if state.problem else 0
        # Where the folder lies is nobody's business but the server's.
        entry.status.error_message = state.problem.replace(str(versions.base), versions.name)
    return response


def model_metadata(versions: Versions, model: LoadedModel) -> Any:
    """Tells the signatures of a model.

    Args:
        versions: The versions.
        model: The model.

    Returns:
        A ``GetModelMetadataResponse``.
    """
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = versions.name
    response.model_spec.version.value = model.version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature.definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def status_json(response: Any) -> bytes:
    """Writes the status of versions as TensorFlow Serving's REST does.

    Args:
        response: What `model_status` answered.

    Returns:
        JSON.
    """
    return _plain(response).encode()


def metadata_json(response: Any) -> bytes:
    """Writes the signatures of a model as TensorFlow Serving's REST does.

    Args:
        response: What `model_metadata` answered.

    Returns:
        JSON.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return json.dumps(
        {
            "model_spec": json.loads(_plain(response.model_spec)),
            "metadata": {"signature_def": json.loads(_plain(signatures))},
        },
        indent=1,
    ).encode()


def _plain(message: Any) -> str:
    written: str = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=1
    )
    return written
