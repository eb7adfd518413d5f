"""What a manifest tells of the model, its data and its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import Robustness
from tfapp.release.answers import Reference
from tfapp.release.model_card import preset_name


def splits(data: Any, check_with: Any) -> dict[str, dict[str, Any]]:
    """Describes the data by its sizes and fingerprints.

    Args:
        data: The `TextData` or `ImageData`; None for ``check_with`` alone.
        check_with: The split that artifacts are measured on.

    Returns:
        For each split ``rows`` and ``sha256``.
    """
    splits = {check_with.name: check_with} if data is None else data.splits
    return {name: {"rows": len(split), "sha256": split.sha256} for name, split in splits.items()}


def checked_scores(evaluation: Any, model: Any) -> dict[str, Any]:
    """Returns the scores of an evaluation, after a look whether it is one of this model as it is now.

    Args:
        evaluation: An `Evaluation` or a mapping; None for no scores.
        model: The classifier.

    Returns:
        The scores.

    Raises:
        ConfigError: When it is of other classes or another temperature than the model's.
    """
    if evaluation is None:
        return {}
    scores = dict(evaluation) if isinstance(evaluation, Mapping) else evaluation.to_dict()
    classes, temperature = scores.get("classes"), scores.get("temperature")
    cure = "Give the answer of evaluate(model, data.test), called after the last training and calibration."
    if classes is not None and list(classes) != list(model.classes):
        raise ConfigError(
            f"evaluation is of the classes {list(classes)}, but the model has {list(model.classes)}. {cure}"
        )
    if temperature is not None and not math.isclose(temperature, model.temperature, rel_tol=1e-6):
        raise ConfigError(
            f"evaluation was made at temperature {temperature:g}, but the model's is now "
            f"{model.temperature:g}. {cure}"
        )
    return scores


def metrics(given: Mapping[str, Any], reference: Reference, robustness: Robustness | None) -> dict[str, Any]:
    """Joins what is known of the trained model's quality.

    Args:
        given: Scores of its evaluation.
        reference: What it answered at export.
        robustness: What was found when it was attacked; None where it was not.

    Returns:
        The scores.
    """
    scores = {"accuracy": reference.accuracy, **given, "temperature": reference.temperature}
    return scores if robustness is None else {**scores, "robustness": robustness.to_dict()}


def model_config(model: Any) -> dict[str, Any]:
    """Describes a model that was made without a workflow.

    Args:
        model: The classifier.

    Returns:
        The section ``model`` of a configuration.
    """
    return {
        "model": {
            "preset": preset_name(getattr(model, "preset", "")),
            "task": model.task,
            **model.settings,
            **model.preprocessor.settings(),
        }
    }
