"""Text classifiers, their pretrained backbones, and where those come from."""

from tfapp.models.bert import build_text_classifier
from tfapp.models.classifier import Classifier
from tfapp.models.presets import BACKBONES, LoadedBackbone, Preset, load_backbone

__all__ = ["BACKBONES", "Classifier", "LoadedBackbone", "Preset", "build_text_classifier", "load_backbone"]
