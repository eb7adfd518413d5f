"""What a distilled student lost: its teacher's scores, sizes of both, and how often they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfapp.evaluation.report import Evaluation

if TYPE_CHECKING:
    from tfapp.models.classifier import Classifier

_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss_calibrated", "ece_calibrated")


def what_it_cost(
    evaluation: Evaluation, teacher: Classifier, student: Classifier, split: Any
) -> dict[str, Any]:
    """Puts together what is told of a teacher beside its student.

    Args:
        evaluation: The teacher's, on ``split``.
        teacher: The teacher.
        student: The student.
        split: The rows that both are measured on.

    Returns:
        JSON values: the teacher's scores, each with its 95 % interval; ``parameters`` and
        ``student_parameters``; ``agreement``, the share of rows to which both answer the same.
    """
    from tfapp.training.inference import predict_logits  # loads TensorFlow, only needed where a model runs

    answered = predict_logits(student, split.features).argmax(axis=1)
    scores = evaluation.to_dict()
    return {
        **{name: scores[name] for name in _SCORES},
        "parameters": int(teacher.count_params()),
        "student_parameters": int(student.count_params()),
        "agreement": float(np.mean(answered == evaluation.predicted)),
    }


def teacher_table(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lays out what a student lost, for people to read.

    Args:
        metrics: The student's scores, with its teacher's as ``teacher``.

    Returns:
        A row for each score and one for the parameters, all with the same columns; empty without a teacher.
    """
    teacher = metrics.get("teacher")
    if not isinstance(teacher, Mapping):
        return []
    rows = [
        {
            "score": name.replace("_", " "),
            "teacher": _with_interval(teacher[name]),
            "student": _with_interval(metrics[name]),
            "difference": f"{metrics[name]['value'] - teacher[name]['value']:+.4f}",
        }
        for name in _SCORES
        if name in teacher and name in metrics
    ]
    own, whole = teacher["student_parameters"], teacher["parameters"]
    sizes = {"teacher": f"{whole:,}", "student": f"{own:,}", "difference": f"{own / whole - 1:+.1%}"}
    return [*rows, {"score": "parameters", **sizes}]


def teacher_words(metrics: Mapping[str, Any]) -> str:
    """Words what kind of comparison `teacher_table` shows.

    Args:
        metrics: The student's scores, with its teacher's as ``teacher``.
    """
    agreement = metrics["teacher"]["agreement"]
    return (
        "The model was distilled from a larger one, its teacher, which was measured on the same rows; "
        f"brackets are 95 % intervals. Both answer the same to {agreement:.2%} of them."
    )


def _with_interval(score: Mapping[str, float]) -> str:
    return f"{score['value']:.4f} ({score['low']:.4f} to {score['high']:.4f})"
