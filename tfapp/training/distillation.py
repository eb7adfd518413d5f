"""Distillation: a small student for phones from a fine-tuned teacher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfapp.data.text import TextData, TextSplit
from tfapp.data.unlabelled import load_unlabelled_texts, without_known
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.models.student import StudentParts, build_student, choose_parts
from tfapp.models.text_classifier import TextClassifier
from tfapp.objectives.distilled import Distilled
from tfapp.training.phases import History, train
from tfapp.training.precision import choose_precision, computing_in
from tfapp.training.settings import Phase
from tfapp.training.teaching import TextTeacher

_LOG = logging.getLogger("tfapp")
_DECIDED = ("phases", "objective", "source", "augment", "views", "max_length", "feature_dir")


@dataclass(frozen=True)
class Distillation:
    """What a distillation has made.

    Attributes:
        student: The trained student, a classifier like its teacher.
        history: Its training; of texts without labels, accuracies count the teacher's answers as right.
        parts: Which parts of its teacher it began with.
    """

    student: TextClassifier
    history: History
    parts: StudentParts


def distill(
    teacher: Classifier,
    data: Any,
    *,
    unlabelled: str | Path | Sequence[str] | None = None,
    num_layers: int | None = None,
    layers: Sequence[int] | None = None,
    vocabulary: Literal["texts", "whole"] = "texts",
    min_count: int = 1,
    vocabulary_size: int | None = None,
    intermediate_dim: int | None = None,
    temperature: float = 2.0,
    label_weight: float = 0.5,
    logits_weight: float = 1.0,
    hidden_weight: float = 1.0,
    hidden_loss: Literal["cosine", "mse"] = "cosine",
    epochs: int = 5,
    learning_rate: float = 2e-4,
    **options: Any,
) -> Distillation:
    """Trains a smaller classifier of texts to answer as a trained one does.

    The student begins as a part of its teacher: some of its blocks, the pieces of the vocabulary that occur
    in the texts, positions up to the teacher's ``max_length``, and its head. It learns from labels, from the
    teacher's softened logits and from its hidden states. The teacher answers every text once; its hidden
    states are kept on disk where they fit into ``feature_cache_megabytes``, and computed in every step where
    they do not.

    Args:
        teacher: A trained text classifier on a BERT; it stays as it is.
        data: The `TextData` that it was trained on, or other with the same classes.
        unlabelled: Texts without labels to learn from beside the training rows, any number of them: the
            texts, or the path or pattern of ``.txt`` files with a text a line, or of CSV, TSV, JSON lines or
            Parquet files with a column ``text``. Those that are rows of the data are left out.
        num_layers: How many of the teacher's blocks the student has, at even distances, the last among them;
            half, rounded up, when None.
        layers: Their numbers instead, from 1. Each block is compared with the one that it comes from.
        vocabulary: ``"texts"`` for the pieces that occur in training texts and those without labels, and all
            that spell what does not; ``"whole"`` for the teacher's.
        min_count: How often a piece must occur to be kept, 1 or more.
        vocabulary_size: Most pieces to keep, the most frequent ones; None for no limit. Words of pieces that
            are not kept are split into shorter ones.
        intermediate_dim: Neurons of each block's feed-forward layer, the most important ones; None for all.
        temperature: What logits are divided by where the two are compared, more than 0.
        label_weight: Weight of the labels' loss, 0 or more; texts without labels have none.
        logits_weight: Weight of the loss between logits, 0 or more.
        hidden_weight: Weight of the loss between hidden states, 0 or more.
        hidden_loss: ``"cosine"`` or ``"mse"``, see `tfapp.objectives.distilled.Distilled`.
        epochs: Passes over all texts, 1 or more.
        learning_rate: Highest learning rate, more than 0 and less than 1.
        **options: Further arguments of `tfapp.train`, such as ``batch_size``, ``patience``, ``precision``,
            ``run_dir`` and ``seed``; all but its phases, objective, source, augment, views, max_length and
            feature_dir.

    Returns:
        The student, its history and its parts.

    Raises:
        ConfigError: When a setting is unknown, out of range or does not go with another.
        DataError: When texts without labels cannot be read.
        WeightsError: When the teacher is no BERT.
        TrainingError: When the loss is no longer finite, or memory runs out.
        OutputError: When ``run_dir`` cannot be written, or another process trains in it.

    Reference:
        Hinton et al. 2015, arXiv:1503.02531; Sanh et al. 2019, DistilBERT, arXiv:1910.01108; Jiao et al.
        2020, TinyBERT, arXiv:1909.10351.
    """
    refused = sorted(set(options) & set(_DECIDED))
    if refused:
        raise ConfigError(f"distill decides {', '.join(refused)} by itself: leave it out.")
    if isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy):
        raise ConfigError("distill does not run on TPUs: use one device, or GPUs.")
    check_can_distil(data)
    if tuple(data.classes) != tuple(teacher.classes):
        raise ConfigError(
            f"the teacher's classes {list(teacher.classes)} are not the data's {list(data.classes)}: distil "
            "on data of the same classes."
        )
    # Refuses what is out of range, before any work.
    objective = Distilled(temperature, label_weight, logits_weight, hidden_weight, hidden_loss)
    phase = Phase("all", epochs=epochs, learning_rate=learning_rate)
    more = without_known(load_unlabelled_texts(() if unlabelled is None else unlabelled), data)
    texts = (*data.train.texts, *more)
    parts = choose_parts(
        teacher,
        texts,
        num_layers=num_layers,
        layers=layers,
        vocabulary=vocabulary,
        min_count=min_count,
        vocabulary_size=vocabulary_size,
        intermediate_dim=intermediate_dim,
    )
    student = build_student(teacher, parts)
    run_dir = options.get("run_dir")
    precision = choose_precision(options.get("precision", "auto"))
    with computing_in(precision, teacher.backbone):
        objective.teacher = taught_by = TextTeacher(
            teacher,
            texts,
            labelled=len(data.train),
            token_ids=parts.token_ids,
            layers=parts.layers,
            precision=precision,
            directory=None if run_dir is None else Path(run_dir) / "features",
        )
        labels = np.concatenate([data.train.labels, taught_by.labels[len(data.train) :]])
        history = train(
            student,
            replace(data, train=TextSplit("train", texts, labels, data.classes)),
            phases=[phase],
            objective=objective,
            **options,
        )
    return Distillation(student, history, parts)


def check_can_distil(data: Any) -> None:
    """Refuses data that no student can learn from.

    Args:
        data: The data.

    Raises:
        ConfigError: When it is no `TextData`, whose rows are in memory.
    """
    if not isinstance(data, TextData):
        raise ConfigError(
            f"distill learns from TextData in memory, not from {type(data).__name__}: read the rows with "
            "load_text_data; shards may go without labels, as the files that they were made from."
        )
