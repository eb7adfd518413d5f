"""Where the files of a release lie, and which of them are models."""

from __future__ import annotations

from pathlib import PurePosixPath

SAVED_MODEL = "saved_model.pb"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "edge/golden.json"

_PLACES = {"saved_model": ".", "keras": "keras/model.keras", "onnx": "onnx/model.onnx"}
_MODEL_ENDINGS = (".keras", ".onnx", ".tflite")
# TensorFlow loads a SavedModel from any of these.
_SAVED_MODELS = (SAVED_MODEL, "saved_model.pbtxt", "saved_model.cpb")


def artifact_path(variant: str) -> str:
    """Tells where a variant lies.

    Args:
        variant: Its name.

    Returns:
        The path relative to the version folder; ``"."`` for the SavedModel.
    """
    return _PLACES.get(variant, f"edge/model-{variant}.tflite")


def artifact_file(variant: str) -> str:
    """Tells which file a variant cannot be loaded without.

    Args:
        variant: Its name.

    Returns:
        The path relative to the version folder.
    """
    path = artifact_path(variant)
    return SAVED_MODEL if path == "." else path


def is_model_file(name: str) -> bool:
    """Tells whether a runtime would take a file for a model.

    Args:
        name: A path relative to the version folder.

    Returns:
        True for every `artifact_file`, and for others of their kinds.
    """
    path = PurePosixPath(name.casefold())
    return path.name in _SAVED_MODELS or path.suffix in _MODEL_ENDINGS
