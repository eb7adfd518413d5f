"""Fine-tune BERT and ResNet50 with Keras, and release only what was measured.

Importing this package loads neither TensorFlow nor Keras: the public names below are imported
from their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfapp.messages import show_messages as _show_messages

if TYPE_CHECKING:
    from tfapp.data.image import ImageData as ImageData
    from tfapp.data.image import load_image_data as load_image_data
    from tfapp.data.text import TextData as TextData
    from tfapp.data.text import load_text_data as load_text_data
    from tfapp.errors import TfappError as TfappError
    from tfapp.evaluation import evaluate_robustness as evaluate_robustness
    from tfapp.evaluation import transfer_ledger as transfer_ledger
    from tfapp.evaluation.evaluate import evaluate as evaluate
    from tfapp.models import build_image_classifier as build_image_classifier
    from tfapp.models import build_text_classifier as build_text_classifier
    from tfapp.models import load_backbone as load_backbone
    from tfapp.models import load_image_backbone as load_image_backbone
    from tfapp.release import Budget as Budget
    from tfapp.release import export as export
    from tfapp.release import verify as verify
    from tfapp.serving import load_release as load_release
    from tfapp.training import Phase as Phase
    from tfapp.training import SourceTask as SourceTask
    from tfapp.training import distill as distill
    from tfapp.training import make_strategy as make_strategy
    from tfapp.training import train as train

__version__ = "0.1.0"

_PUBLIC = {
    "Budget": "tfapp.release",
    "ImageData": "tfapp.data.image",
    "Phase": "tfapp.training",
    "SourceTask": "tfapp.training",
    "TextData": "tfapp.data.text",
    "TfappError": "tfapp.errors",
    "build_image_classifier": "tfapp.models",
    "build_text_classifier": "tfapp.models",
    "distill": "tfapp.training",
    "evaluate": "tfapp.evaluation",
    "evaluate_robustness": "tfapp.evaluation",
    "export": "tfapp.release",
    "load_backbone": "tfapp.models",
    "load_image_backbone": "tfapp.models",
    "load_image_data": "tfapp.data.image",
    "load_release": "tfapp.serving",
    "load_text_data": "tfapp.data.text",
    "make_strategy": "tfapp.training",
    "train": "tfapp.training",
    "transfer_ledger": "tfapp.evaluation",
    "verify": "tfapp.release",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604

_show_messages()


def __getattr__(name: str) -> Any:
    """Imports a public name from its module on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfapp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
