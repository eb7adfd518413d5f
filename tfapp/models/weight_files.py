"""Weight files of others: what is missing, damaged, or able to run code is refused before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open

from tfapp.errors import WeightsError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        WeightsError: If the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object. Download it again.")
    return content


def check_files(folder: Path, needed: tuple[str, ...]) -> None:
    """Checks that a folder of weights is complete, and that its weights are no pickle.

    Args:
        folder: The folder.
        needed: Names of the files that it must hold.

    Raises:
        WeightsError: If a file is missing; the message tells when a pickle lies in its place.
    """
    missing = [name for name in needed if not (folder / name).is_file()]
    if not missing:
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles and any("safetensors" in name for name in missing):
        raise WeightsError(
            f"{folder} holds its weights as a pickle ({', '.join(pickles)}), which can run code when it is "
            "read. tfapp never reads pickles. Convert it where you trust it: "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)."
        )
    raise WeightsError(f"{folder} lacks {', '.join(missing)}; it needs {', '.join(needed)}.")


def check_safetensors(path: Path) -> None:
    """Checks that a safetensors file is whole and holds only finite numbers.

    Args:
        path: The file.

    Raises:
        WeightsError: If the file is truncated, damaged, or holds NaN or infinity.
    """
    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                values = tensors.get_tensor(name)
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise WeightsError(
                        f"{path}: the tensor {name!r} holds NaN or infinity. Download it again."
                    )
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or incomplete ({error}). Download it again.") from error


def load_keras_file(path: Path, *, allow_unsafe: bool) -> keras.Model:
    """Loads a model from a ``.keras`` or ``.h5`` file without running code from it.

    Args:
        path: The file.
        allow_unsafe: Load Lambda layers too: code from the file then runs on this machine.

    Returns:
        The model, not compiled.

    Raises:
        WeightsError: If the file is damaged, holds Lambda layers, or needs classes that are not known.
    """
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not allow_unsafe)
    except Exception as error:
        if not allow_unsafe and "safe_mode" in str(error):
            raise WeightsError(
                f"{path} holds a Lambda layer, which is Python code that loading would run. "
                "Pass allow_unsafe=True only if you trust its author."
            ) from error
        # Keras raises many kinds here: zip, HDF5, JSON, missing classes, shapes that do not fit.
        raise WeightsError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model):
        raise WeightsError(f"{path} holds a {type(model).__name__}, not a model.")
    return model
