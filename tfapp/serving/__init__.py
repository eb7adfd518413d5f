"""Serving: predictions from released files."""

from tfapp.serving.predictor import Prediction, Predictor, load_release

__all__ = ["Prediction", "Predictor", "load_release"]
