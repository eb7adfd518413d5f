"""Keras file for further training and inspection in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfapp.exporters._graph import in_float32


def export_keras(model: Any, directory: str | Path) -> Path:
    """Writes ``keras/model.keras``: the plain functional model, from input tensors to raw logits.

    Args:
        model: A classifier with ``plain()``.
        directory: The release's folder.

    Returns:
        The file. It loads with keras and keras-hub, without tfapp; the temperature is not in it.
    """
    path = Path(directory) / "keras" / "model.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    in_float32(model).plain().save(path)
    return path
