"""Writers of released files: one file a format, each reading only what the model declares."""

from collections.abc import Callable
from pathlib import Path

from tfapp.exporters._graph import in_float32
from tfapp.exporters._metadata import LABELS, VOCABULARY, label_file
from tfapp.exporters._packing import Packed, unpack
from tfapp.exporters.keras_file import export_keras
from tfapp.exporters.saved_model import export_saved_model
from tfapp.exporters.tflite import VARIANTS as TFLITE_VARIANTS
from tfapp.exporters.tflite import export_tflite

EXPORTERS: dict[str, Callable[..., Path]] = {
    "saved_model": export_saved_model,
    "keras": export_keras,
    "tflite": export_tflite,
}

__all__ = [
    "EXPORTERS",
    "LABELS",
    "TFLITE_VARIANTS",
    "VOCABULARY",
    "Packed",
    "export_keras",
    "export_saved_model",
    "export_tflite",
    "in_float32",
    "label_file",
    "unpack",
]
