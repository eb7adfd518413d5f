"""Serving: predictions from released files, here or on a server.

A client needs no TensorFlow, so what does is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfapp.serving.prediction import Prediction

if TYPE_CHECKING:
    from tfapp.serving.client import AsyncClient as AsyncClient
    from tfapp.serving.client import Client as Client
    from tfapp.serving.predictor import Predictor as Predictor
    from tfapp.serving.predictor import load_release as load_release

_HOMES = {
    "AsyncClient": "tfapp.serving.client",
    "Client": "tfapp.serving.client",
    "Predictor": "tfapp.serving.predictor",
    "load_release": "tfapp.serving.predictor",
}

__all__ = ["AsyncClient", "Client", "Prediction", "Predictor", "load_release"]


def __getattr__(name: str) -> Any:
    """Imports what needs more than the standard library on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tfapp.serving' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
