"""Writers of released files: one file a format, each reading only what the model declares."""

from collections.abc import Callable
from pathlib import Path

from tfapp.exporters._graph import in_float32
from tfapp.exporters._metadata import LABELS, label_file
from tfapp.exporters._packing import Packed, unpack
from tfapp.exporters.keras_file import export_keras
from tfapp.exporters.onnx import export_onnx, onnx_obstacle
from tfapp.exporters.saved_model import export_saved_model
from tfapp.exporters.tflite import INTEGER_REPORT, export_tflite
from tfapp.exporters.tflite import VARIANTS as TFLITE_VARIANTS
from tfapp.exporters.web_page import export_web_page

EXPORTERS: dict[str, Callable[..., Path]] = {
    "saved_model": export_saved_model,
    "keras": export_keras,
    "tflite": export_tflite,
    "onnx": export_onnx,
    "web_page": export_web_page,
}

__all__ = [
    "EXPORTERS",
    "INTEGER_REPORT",
    "LABELS",
    "TFLITE_VARIANTS",
    "Packed",
    "export_keras",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "export_web_page",
    "in_float32",
    "label_file",
    "onnx_obstacle",
    "unpack",
]
