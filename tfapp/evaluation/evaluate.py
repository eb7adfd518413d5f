"""Measuring a trained model on a split of the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax  # type: ignore[import-untyped]
from sklearn.metrics import confusion_matrix

from tfapp.errors import ConfigError, DataError
from tfapp.evaluation.calibration import check_logits, fit_temperature, reliability
from tfapp.evaluation.checks import check_split
from tfapp.evaluation.metrics import class_scores, score
from tfapp.evaluation.report import Evaluation

if TYPE_CHECKING:
    from tfapp.models.classifier import Classifier

logger = logging.getLogger("tfapp")


def evaluate_logits(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    classes: Sequence[str],
    *,
    temperature: float = 1.0,
    split: str = "test",
    calibrated_on: str | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluates the logits of a single-label classifier; needs numpy, not TensorFlow.

    Args:
        logits: Scores before the softmax and before the temperature, ``(rows, num_classes)``.
        labels: Class indices, ``(rows,)``. Classes may be missing.
        classes: Names of the classes, in the order of the logits' columns.
        temperature: By what the logits are divided for the calibrated scores, above 0.
        split: What the rows are called in the report.
        calibrated_on: The name of the split on which the temperature was fitted.
        num_bootstrap: Resamples of the rows behind each interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        The evaluation.

    Raises:
        DataError: Logits, labels and classes do not belong together.
        ConfigError: ``num_bootstrap`` or ``temperature`` is out of range.
    """
    scores, truth = check_logits(logits, labels)
    names = tuple(classes)
    if len(names) != scores.shape[1]:
        raise DataError(f"logits have {scores.shape[1]} columns, but there are {len(names)} classes")
    intervals = score(scores, truth, temperature=temperature, num_bootstrap=num_bootstrap, seed=seed)
    predicted = scores.argmax(axis=1)
    return Evaluation(
        split=split,
        classes=names,
        labels=truth,
        predicted=predicted,
        confidence=softmax(scores / temperature, axis=1).max(axis=1),
        temperature=temperature,
        calibrated_on=calibrated_on,
        per_class=class_scores(truth, predicted, names, num_bootstrap=num_bootstrap, seed=seed),
        confusion=confusion_matrix(truth, predicted, labels=range(len(names))).astype(np.int64),
        reliability=reliability(scores, truth),
        reliability_calibrated=reliability(scores, truth, temperature=temperature),
        num_bootstrap=num_bootstrap,
        seed=seed,
        **intervals,
    )


def evaluate(
    model: Classifier,
    split: Any,
    *,
    calibrate_with: Any | None = None,
    batch_size: int = 128,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measures a model on a split, after calibrating it if asked.

    Args:
        model: A classifier with a ``task``, ``classes`` and a ``temperature``.
        split: The rows to measure on, of texts or images.
        calibrate_with: Held-out rows on which the temperature is fitted; ``model.temperature`` is set to
            it, so that exported graphs carry it. Without them the model keeps the temperature that it has.
        batch_size: Rows computed at once.
        num_bootstrap: Resamples of the rows behind each interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        The evaluation; print it, or ``save`` it to a folder.

    Raises:
        ConfigError: The model's task has no metrics yet, or an argument is out of range.
        DataError: A split has no rows, or its classes are not the model's, in the model's order.

    Reference:
        Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks",
        arXiv:1706.04599.
    """
    if model.task not in _BY_TASK:
        raise ConfigError(
            f"task {model.task!r} cannot be evaluated; tasks with metrics: {', '.join(_BY_TASK)}"
        )
    if num_bootstrap < 1:
        raise ConfigError(f"num_bootstrap = {num_bootstrap}: it must be at least 1 (1000 is usual)")
    for rows in (split, calibrate_with):
        if rows is not None:
            check_split(rows, model.classes)
    if calibrate_with is split:
        logger.warning(
            "The temperature is fitted on the very rows that are evaluated: expect worse elsewhere."
        )

    from tfapp.training.inference import predict_logits  # TensorFlow loads only where a model runs

    if calibrate_with is not None:
        held_out = predict_logits(model, calibrate_with.features, batch_size=batch_size)
        model.temperature = fit_temperature(held_out, calibrate_with.labels)
    logits = predict_logits(model, split.features, batch_size=batch_size)
    return _BY_TASK[model.task](
        logits,
        split.labels,
        model.classes,
        temperature=model.temperature,
        split=split.name,
        calibrated_on=calibrate_with.name if calibrate_with is not None else None,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )


_BY_TASK: dict[str, Callable[..., Evaluation]] = {"single_label": evaluate_logits}
