"""Training in phases under Keras's `fit`, and inference over many rows."""

from __future__ import annotations

from tfapp.training.board import Board
from tfapp.training.checkpoints import load_checkpoint
from tfapp.training.distillation import Distillation, distill
from tfapp.training.inference import predict_logits
from tfapp.training.overfitting_probe import CatastrophicOverfitting
from tfapp.training.phases import History, train
from tfapp.training.precision import choose_precision
from tfapp.training.settings import Phase, TrainSettings
from tfapp.training.source import SourceTask
from tfapp.training.strategy import make_strategy

__all__ = [
    "Board",
    "CatastrophicOverfitting",
    "Distillation",
    "History",
    "Phase",
    "SourceTask",
    "TrainSettings",
    "choose_precision",
    "distill",
    "load_checkpoint",
    "make_strategy",
    "predict_logits",
    "train",
]
