"""Classifiers of texts and images, their pretrained backbones, and where those come from."""

from tfapp.models.bert import build_text_classifier
from tfapp.models.classifier import Classifier
from tfapp.models.image_classifier import ImageClassifier, build_image_classifier
from tfapp.models.image_presets import LoadedImageBackbone, load_image_backbone
from tfapp.models.presets import BACKBONES, LoadedBackbone, Preset, load_backbone
from tfapp.models.text_classifier import TextClassifier

__all__ = [
    "BACKBONES",
    "Classifier",
    "ImageClassifier",
    "LoadedBackbone",
    "LoadedImageBackbone",
    "Preset",
    "TextClassifier",
    "build_image_classifier",
    "build_text_classifier",
    "load_backbone",
    "load_image_backbone",
]
