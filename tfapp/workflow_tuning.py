"""How the training of a workflow runs fastest on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfapp.config import WorkflowConfig
from tfapp.config_rows import RowsSection
from tfapp.workflow_calls import build_classifier, harden_options, read_data, train_options
from tfapp.workflow_checks import check_stages

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.training.tuning import Tuned


def tune_workflow(config: WorkflowConfig, *, batch_sizes: Sequence[int] = (), seconds: float = 60.0) -> Tuned:
    """Measures the training of a workflow on its own data and model; nothing of a run is read or written.

    Args:
        config: The workflow.
        batch_sizes: Further batch sizes to try.
        seconds: About how long to measure, once data and models are loaded.

    Returns:
        What was measured, and the settings of ``[train]`` that should change.

    Raises:
        TfappError: A setting, the data or the backbone cannot be used, or training fails.
    """
    check_stages(config)
    data = _read(config, config.data)

    from tfapp.training.tuning import tune_training

    stages: dict[str, dict[str, Any]] = {"transfer": {**train_options(config), "seed": config.seed}}
    section = config.transfer.source
    if section is not None:
        from tfapp.data.image import ImageData
        from tfapp.training import SourceTask

        source = _read(config, section, data if isinstance(data, ImageData) else None)
        task = SourceTask(source, section.alpha, section.alpha_schedule, section.source_share)
        stages["transfer"]["source"] = task
    if config.harden is not None:
        stages["harden"] = {**harden_options(config, config.harden), "seed": config.seed}
    return tune_training(
        lambda: build_classifier(config, data.classes),
        data,
        stages,
        batch_sizes=batch_sizes,
        seconds=seconds,
    )


def _read(
    config: WorkflowConfig, section: RowsSection, target: ImageData | None = None
) -> TextData | ImageData:
    paths = {
        split: config.resolve(path)
        for split in ("train", "validation", "test")
        if (path := getattr(section, split)) is not None
    }
    return read_data(config, section, section.dataset or paths["train"], paths, target)
