"""The stages of a workflow that end in a trained model: prepare, transfer and harden."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfapp.config import WorkflowConfig
from tfapp.config_rows import RowsSection
from tfapp.errors import DataError
from tfapp.runs import RunFolder, Stage, remove
from tfapp.workflow_calls import (
    augment_setting,
    build_classifier,
    harden_options,
    load_prepared,
    load_sharded,
    overfitting_probes,
    read_data,
    read_unlabelled,
    train_options,
)
from tfapp.workflow_devices import Devices
from tfapp.workflow_files import backbone_files, source_files

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.evaluation import Robustness
    from tfapp.models import Classifier
    from tfapp.training import CatastrophicOverfitting, History, SourceTask

_logger = logging.getLogger("tfapp")
_WEIGHTS = "model.weights.h5"
_STUDENT = {"num_layers", "layers", "vocabulary", "min_count", "vocabulary_size", "intermediate_dim"}


def prepare(
    config: WorkflowConfig,
    run: RunFolder,
    section: RowsSection,
    name: str = "prepare",
    target: ImageData | None = None,
) -> TextData | ImageData:
    """Reads, cleans and splits texts or images; those of a source task apart from their target's.

    Args:
        config: The workflow.
        run: The run's folder.
        section: Where the rows come from.
        name: Name of the stage.
        target: The target's images, for those of a source task.

    Returns:
        The data.

    Raises:
        DataError: When something cannot be used.
        AssetError: When a packaged set cannot be fetched.
    """
    paths = {
        split: config.resolve(path)
        for split in ("train", "validation", "test")
        if (path := getattr(section, split)) is not None
    }
    inputs: dict[str, Any] = {
        "data": section.model_dump(include=set(RowsSection.model_fields)),
        "seed": config.seed,
        **source_files(config, section, paths),
    }
    if target is not None:
        inputs["target"] = target.fingerprint
    stage = run.stage(name, inputs)
    sharded = load_sharded(config, section, paths)
    if sharded is not None:
        if stage.finished:
            say_skipped(stage)
        else:
            _logger.info("%s: %s, of which training rows are read batch by batch", name, paths["train"])
            for line in sharded.report.lines():
                _logger.info("  %s", line)
            stage.finish({"fingerprint": sharded.fingerprint})
        return sharded
    if stage.finished:
        try:
            data = load_prepared(config, stage.directory / "data")
        except DataError as error:
            _logger.warning("%s: done again, for what it prepared cannot be used: %s", name, error)
            run.skipped.remove(stage.name)
        else:
            say_skipped(stage)
            return data

    from tfapp.data.storage import REPORT

    _logger.info("%s: reading %s", name, section.dataset or paths["train"])
    data = read_data(config, section, section.dataset or paths["train"], paths, target)
    saved = data.save(stage.directory / "data")
    for line in data.report.lines(saved / REPORT):
        _logger.info("  %s", line)
    stage.finish({"fingerprint": data.fingerprint}, outputs=["data"])
    return data


def prepare_source(config: WorkflowConfig, run: RunFolder, target: TextData | ImageData) -> SourceTask | None:
    """Prepares the task that is learned beside the target, if there is one.

    Args:
        config: The workflow.
        run: The run's folder.
        target: The target's data.

    Returns:
        The task, or None.

    Raises:
        DataError: When something cannot be used.
        AssetError: When a packaged set cannot be fetched.
    """
    section = config.transfer.source
    if section is None:
        return None

    from tfapp.data.image import ImageData

    images = target if isinstance(target, ImageData) else None
    data = prepare(config, run, section, "prepare-source", images)

    from tfapp.training import SourceTask

    return SourceTask(data, section.alpha, section.alpha_schedule, section.source_share)


class Trained:
    """A trained model, which is only built again when a later stage needs it.

    Args:
        config: The workflow.
        classes: Names of the classes in their order.
        stage: The stage that trained it, with its weights; of workers other than the chief it may have none.
    """

    def __init__(self, config: WorkflowConfig, classes: Iterable[str], stage: Stage) -> None:
        self.stage = stage
        self._config = config
        self._classes = tuple(classes)

    @cached_property
    def model(self) -> Classifier:
        """The classifier with its trained weights, on one device."""
        return self.build()

    def build(self) -> Classifier:
        """Builds the classifier anew, under the strategy in whose scope it is called.

        Returns:
            The classifier, with its trained weights where the stage has some.
        """
        model = self._build_untrained()
        if not self.stage.finished:
            return model
        model.load_weights(self.stage.directory / _WEIGHTS)
        lengths = self.stage.result["lengths"]
        if lengths is not None:
            model.preprocessor.max_length = lengths["max_length"]
        return model

    def _build_untrained(self) -> Classifier:
        """Builds the classifier as it was before its stage trained it."""
        return build_classifier(self._config, self._classes)

    def with_alarms(self, robustness: Robustness) -> Robustness:
        """Puts what was found while it was trained beside a robust accuracy of the model.

        Args:
            robustness: The figures.

        Returns:
            The same with an alarm for each catastrophic overfitting, if that was looked for.
        """
        found = self.stage.result.get("overfitting")
        if found is None:
            return robustness

        from tfapp.evaluation.alarms import OVERFITTED, catastrophic_overfitting
        from tfapp.training.overfitting_probe import Overfitting

        alarms = [
            catastrophic_overfitting(attack=robustness.attack, found=str(Overfitting(**each)))
            for each in found
        ]
        return robustness.joined_by(alarms, checked=OVERFITTED)


def transfer(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    source: SourceTask | None,
    devices: Devices | None = None,
) -> Trained:
    """Fine-tunes the backbone in phases, beside a source task where there is one.

    Args:
        config: The workflow.
        run: The run's folder.
        data: The target's data.
        source: The task beside it, or None.
        devices: Where it is trained; None where it is only looked for.

    Returns:
        The model.

    Raises:
        TfappError: When the backbone or a setting cannot be used, or training fails.
    """
    inputs = {
        "data": data.fingerprint,
        "seed": config.seed,
        "max_length": config.data.max_length,
        "long_texts": config.data.long_texts,
        "augment": augment_setting(config),
        "max_pixels": config.data.max_pixels,
        "model": {**config.model.model_dump(), "backbone": config.backbone},
        "files": backbone_files(config),
        "transfer": config.transfer.model_dump(exclude={"source": set(RowsSection.model_fields)}),
        "source": None if source is None else source.data.fingerprint,
        "train": config.train.model_dump(exclude={"checkpoint_steps", "num_microbatches", "tensorboard"}),
    }
    stage = run.stage("transfer", inputs)
    trained = Trained(config, data.classes, stage)
    if is_finished(stage, devices):
        say_skipped(stage)
        return trained
    assert devices is not None  # else a stage that is not finished is an error

    import keras

    from tfapp.models.student import check_student
    from tfapp.release.artifacts import choose_variants
    from tfapp.release.page_runtime import page_runtime
    from tfapp.training.distillation import check_can_distil

    _logger.info("transfer: %s", "continuing where it stood" if stage.resumes else config.backbone)
    keras.utils.set_random_seed(config.seed)
    with devices.strategy.scope():
        model = build_classifier(config, data.classes)
    # Refused before the work, not after it.
    if config.export.variants is not None:
        choose_variants(model, config.export.variants)
    if config.distill is not None:
        check_can_distil(data)
        read_unlabelled(config)
        check_student(model, **config.distill.model_dump(include=_STUDENT))
    if config.export.web:
        page_runtime(True, model, config.export.variants or model.preprocessor.variants)
    probes = overfitting_probes(config, None, data)
    options = train_options(config)
    _fit(trained, model, data, probes, devices, source=source, seed=config.seed, **options)
    return trained


def harden(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    transferred: Trained,
    devices: Devices | None = None,
) -> Trained:
    """Goes on training the transferred model with an adversarial objective.

    Args:
        config: The workflow.
        run: The run's folder.
        data: Its data.
        transferred: What was transferred; its model is changed in place on one device.
        devices: Where it is trained; None where it is only looked for.

    Returns:
        The hardened model; ``transferred`` itself where the workflow has no section ``harden``.

    Raises:
        TfappError: When a setting cannot be used, or training fails.
    """
    section = config.harden
    if section is None:
        return transferred
    stage = run.stage("harden", {"upstream": transferred.stage.key, "harden": section.model_dump()})
    hardened = Trained(config, data.classes, stage)
    if is_finished(stage, devices):
        say_skipped(stage)
        return hardened
    assert devices is not None  # else a stage that is not finished is an error
    _logger.info("harden: %s", "continuing where it stood" if stage.resumes else section.objective)
    options = harden_options(config, section)
    probes = overfitting_probes(config, section, data)
    with devices.strategy.scope():
        model = transferred.model if devices.plain else transferred.build()
    _fit(hardened, model, data, probes, devices, seed=config.seed, **options)
    return hardened


def _fit(
    trained: Trained,
    model: Classifier,
    data: TextData | ImageData,
    probes: Sequence[CatastrophicOverfitting],
    devices: Devices,
    **options: Any,
) -> None:
    """Trains a model in a stage's folder, and leaves its weights there, with what probes have found."""
    from tfapp.training import train

    stage = trained.stage
    with devices.strategy.scope():
        history = train(model, data, run_dir=stage.directory, callbacks=probes, **options)
    found: dict[str, Any] = {}
    if probes:
        found["overfitting"] = [asdict(each) for probe in probes for each in probe.found]
    keep_trained(trained, model, history, devices, **found)


def keep_trained(
    trained: Trained, model: Classifier, history: History, devices: Devices, **found: Any
) -> None:
    """Leaves the weights of a trained model in its stage's folder, and finishes the stage.

    Args:
        trained: Where the model belongs.
        model: The model.
        history: Its training.
        devices: Where it was trained.
        **found: What else is to be known of it; JSON values.
    """
    stage = trained.stage
    partial = stage.directory / f"partial-{_WEIGHTS}"
    model.save_weights(partial)
    os.replace(partial, stage.directory / _WEIGHTS)
    lengths = None if history.lengths is None else dict(vars(history.lengths))
    about = {"lengths": lengths, "precision": history.precision, "alpha": history.alpha}
    stage.finish({**about, **found}, outputs=[_WEIGHTS])
    remove_working_files(stage.directory)
    if devices.plain:
        trained.model = model


def is_finished(stage: Stage, devices: Devices | None) -> bool:
    """Tells whether a stage need not run: workers do what their chief does.

    Args:
        stage: The stage.
        devices: Where it would run; None where it is only looked for.
    """
    return stage.finished if devices is None else bool(devices.workers.from_chief(stage.finished))


def remove_working_files(directory: Path) -> None:
    """Removes what was kept to go on from.

    Args:
        directory: A stage's folder.
    """
    for name in ("checkpoints", "features*"):
        for path in list(directory.rglob(name)):
            remove(path)


def say_skipped(stage: Stage) -> None:
    """Logs that a stage was found finished."""
    _logger.info("%s: unchanged, skipped", stage.name)
