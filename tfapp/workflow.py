"""The workflow in one straight line: prepare, transfer, harden, evaluate, export and verify.

Each stage writes into its own folder below ``runs/<name>`` and is skipped when nothing that it depends on
has changed, so a killed run continues at the stage, and within training at the epoch, where it stood.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfapp.config import RowsSection, WorkflowConfig
from tfapp.errors import DataError
from tfapp.runs import RunFolder, Stage, open_run, remove, writing_to
from tfapp.workflow_calls import (
    augment_setting,
    backbone_files,
    build_classifier,
    harden_options,
    load_prepared,
    overfitting_probes,
    read_data,
    source_files,
    train_options,
)

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.models import Classifier
    from tfapp.release import Release
    from tfapp.training import SourceTask

_logger = logging.getLogger("tfapp")
_WEIGHTS = "model.weights.h5"


@dataclass(frozen=True)
class WorkflowResult:
    """What a workflow has made.

    Attributes:
        release: The verified release.
        metrics: Scores of the trained model on the test split.
        run_directory: Where the stages keep their files.
        skipped: Stages that were found finished.
    """

    release: Release
    metrics: dict[str, Any]
    run_directory: Path
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run has trained.

    Attributes:
        model: The classifier.
        data: Its data.
        directory: The run's folder.
    """

    model: Classifier
    data: TextData | ImageData
    directory: Path


def run_workflow(config: WorkflowConfig, *, output: str | Path = ".", fresh: bool = False) -> WorkflowResult:
    """Runs every stage that has something to do.

    Args:
        config: What to run.
        output: Folder that gets ``runs/<name>/`` and ``saved_models/<name>/<version>/``.
        fresh: Starts anew instead of continuing an earlier run.

    Returns:
        The release and where everything lies.

    Raises:
        TfappError: The data, the backbone, its weights, or the output folder cannot be used.
        ReleaseRefused: An artifact went beyond its budget.
    """
    # Refused before the work, not after it.
    config.resolve_weights()
    augment_setting(config)
    output = Path(output).expanduser().resolve()
    releases = output / "saved_models"
    with writing_to(releases):
        releases.mkdir(parents=True, exist_ok=True)
    with open_run(output / "runs" / config.name, fresh=fresh) as run:
        data = _prepare(config, run, config.data)
        source = _source(config, run, data)
        transferred = _transfer(config, run, data, source)
        trained = _harden(config, run, data, transferred)
        evaluated = _evaluate(config, run, data, trained)
        attacked = _attack(config, run, data, trained, evaluated)
        if config.evaluate.ledger:
            _ledger(config, run, data, source, transferred)
        release = _export(config, run, data, trained, evaluated, attacked, releases / config.name)
        return WorkflowResult(release, evaluated.result["metrics"], run.directory, tuple(run.skipped))


def open_trained(config: WorkflowConfig, *, output: str | Path = ".") -> TrainedRun:
    """Finds what a finished run has trained, without making or removing anything.

    Args:
        config: The workflow that was run.
        output: The folder that has ``runs/<name>/``.

    Returns:
        The trained model at its fitted temperature, and its data.

    Raises:
        OutputError: There is no such run, or it was made from other settings or data, or is in use.
    """
    directory = Path(output).expanduser().resolve() / "runs" / config.name
    with open_run(directory, finished_only=True) as run:
        data = _prepare(config, run, config.data)
        source = _source(config, run, data)
        trained = _harden(config, run, data, _transfer(config, run, data, source))
        evaluated = _evaluate(config, run, data, trained)
        trained.model.temperature = evaluated.result["temperature"]
        return TrainedRun(trained.model, data, run.directory)


def _prepare(
    config: WorkflowConfig,
    run: RunFolder,
    section: RowsSection,
    name: str = "prepare",
    target: ImageData | None = None,
) -> TextData | ImageData:
    """Reads, cleans and splits texts or images; those of a source task apart from their target's."""
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
    if stage.finished:
        try:
            data = load_prepared(config, stage.directory / "data")
        except DataError as error:
            _logger.warning("%s: done again, for what it prepared cannot be used: %s", name, error)
            run.skipped.remove(stage.name)
        else:
            _say_skipped(stage)
            return data

    from tfapp.data.storage import REPORT

    _logger.info("%s: reading %s", name, section.dataset or paths["train"])
    data = read_data(config, section, section.dataset or paths["train"], paths, target)
    saved = data.save(stage.directory / "data")
    for line in data.report.lines(saved / REPORT):
        _logger.info("  %s", line)
    stage.finish({"fingerprint": data.fingerprint}, outputs=["data"])
    return data


def _source(config: WorkflowConfig, run: RunFolder, target: TextData | ImageData) -> SourceTask | None:
    """Prepares the task that is learned beside the target, if there is one."""
    section = config.transfer.source
    if section is None:
        return None

    from tfapp.data.image import ImageData

    images = target if isinstance(target, ImageData) else None
    data = _prepare(config, run, section, "prepare-source", images)

    from tfapp.training import SourceTask

    return SourceTask(data, section.alpha, section.alpha_schedule, section.source_share)


class _Trained:
    """A fine-tuned model, which is only built again when a later stage needs it."""

    def __init__(self, config: WorkflowConfig, classes: Iterable[str], stage: Stage) -> None:
        self.stage = stage
        self._config = config
        self._classes = tuple(classes)

    @cached_property
    def model(self) -> Classifier:
        model = build_classifier(self._config, self._classes)
        model.load_weights(self.stage.directory / _WEIGHTS)
        lengths = self.stage.result["lengths"]
        if lengths is not None:
            model.preprocessor.max_length = lengths["max_length"]
        return model


def _transfer(
    config: WorkflowConfig, run: RunFolder, data: TextData | ImageData, source: SourceTask | None
) -> _Trained:
    """Fine-tunes the backbone in phases, beside a source task where there is one."""
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
        "train": config.train.model_dump(),
    }
    stage = run.stage("transfer", inputs)
    trained = _Trained(config, data.classes, stage)
    if stage.finished:
        _say_skipped(stage)
        return trained

    import keras

    from tfapp.release.artifacts import choose_variants

    _logger.info("transfer: %s", "continuing where it stood" if stage.resumes else config.backbone)
    keras.utils.set_random_seed(config.seed)
    model = build_classifier(config, data.classes)
    if config.export.variants is not None:
        choose_variants(model, config.export.variants)  # refused before the work, not after it
    if config.harden is not None:
        harden_options(config, config.harden)  # likewise
    _fit(trained, model, data, source=source, seed=config.seed, **train_options(config))
    return trained


def _harden(
    config: WorkflowConfig, run: RunFolder, data: TextData | ImageData, transferred: _Trained
) -> _Trained:
    """Goes on training the transferred model with an adversarial objective."""
    section = config.harden
    if section is None:
        return transferred
    stage = run.stage("harden", {"upstream": transferred.stage.key, "harden": section.model_dump()})
    hardened = _Trained(config, data.classes, stage)
    if stage.finished:
        _say_skipped(stage)
        return hardened
    _logger.info("harden: %s", "continuing where it stood" if stage.resumes else section.objective)
    options = harden_options(config, section)
    probes = overfitting_probes(config, section, data)
    _fit(hardened, transferred.model, data, seed=config.seed, callbacks=probes, **options)
    return hardened


def _fit(trained: _Trained, model: Classifier, data: TextData | ImageData, **options: Any) -> None:
    """Trains a model in a stage's folder, and leaves its weights there."""
    from tfapp.training import train

    stage = trained.stage
    history = train(model, data, run_dir=stage.directory, **options)
    partial = stage.directory / f"partial-{_WEIGHTS}"
    model.save_weights(partial)
    os.replace(partial, stage.directory / _WEIGHTS)
    lengths = None if history.lengths is None else dict(vars(history.lengths))
    result = {"lengths": lengths, "precision": history.precision, "alpha": history.alpha}
    stage.finish(result, outputs=[_WEIGHTS])
    _remove_working_files(stage.directory)
    trained.model = model


def _evaluate(config: WorkflowConfig, run: RunFolder, data: TextData | ImageData, trained: _Trained) -> Stage:
    """Calibrates the model on the validation split and measures it on the test split."""
    section = config.evaluate
    stage = run.stage(
        "evaluate",
        {"upstream": trained.stage.key, "evaluate": section.model_dump(exclude={"ledger", "attack"})},
    )
    if stage.finished:
        _say_skipped(stage)
        return stage

    from tfapp.evaluation import evaluate

    _logger.info("evaluate: %d test rows", len(data.test))
    evaluation = evaluate(
        trained.model,
        data.test,
        calibrate_with=data.validation if section.calibrate else None,
        batch_size=section.batch_size,
        num_bootstrap=section.num_bootstrap,
        seed=config.seed,
    )
    for line in evaluation.lines():
        _logger.info("%s", f"  {line}".rstrip())
    evaluation.save(stage.directory)
    stage.finish({"temperature": trained.model.temperature, "metrics": evaluation.to_dict()})
    return stage


def _attack(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    trained: _Trained,
    evaluated: Stage,
) -> Stage | None:
    """Attacks the model on test rows, and keeps what the attack made of them for the artifacts."""
    section = config.evaluate.attack
    if section is None:
        return None
    stage = run.stage("attack", {"upstream": evaluated.key, "attack": section.model_dump()})
    if stage.finished:
        _say_skipped(stage)
        return stage

    from tfapp.evaluation import evaluate_robustness
    from tfapp.evaluation.robustness.page import save_page

    _logger.info("attack: %s on up to %d test rows", section.attack, section.examples)
    trained.model.temperature = evaluated.result["temperature"]
    robustness = evaluate_robustness(trained.model, data.test, **section.model_dump())
    for line in robustness.lines():
        _logger.info("%s", f"  {line}".rstrip())
    robustness.save(stage.directory)
    save_page(stage.directory, f"Robustness of {config.name}", [robustness])
    stage.finish(robustness.to_dict(), outputs=["robustness.json", "adversarial.npz", "report.html"])
    return stage


def _ledger(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    source: SourceTask | None,
    trained: _Trained,
) -> None:
    """Compares the ways of training: from scratch, frozen, fine-tuned, and beside the source task."""
    section = config.evaluate
    inputs = {"upstream": trained.stage.key, "num_bootstrap": section.num_bootstrap}
    stage = run.stage("ledger", inputs)
    if stage.finished:
        _say_skipped(stage)
        return

    from tfapp.evaluation import transfer_ledger

    ledger = transfer_ledger(
        lambda weights, seed: build_classifier(config, data.classes, weights=weights, seed=seed),
        data,
        source=source,
        seeds=(config.seed,),
        num_bootstrap=section.num_bootstrap,
        run_dir=stage.directory,
        **train_options(config),
    )
    for line in ledger.lines():
        _logger.info("%s", f"  {line}".rstrip())
    ledger.save(stage.directory)
    stage.finish(ledger.to_dict(), outputs=["ledger.json"])
    _remove_working_files(stage.directory)


def _export(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    trained: _Trained,
    evaluated: Stage,
    attacked: Stage | None,
    target: Path,
) -> Release:
    """Writes, verifies and releases the artifacts."""
    from tfapp.evaluation import Robustness
    from tfapp.release import Budget, Release, export
    from tfapp.release.manifest import find_damage

    inputs = {
        "upstream": evaluated.key,
        "export": config.export.model_dump(),
        "verify": config.verify.model_dump(),
        "target": str(target),
    }
    if attacked is not None:
        inputs["attack"] = attacked.key
    stage = run.stage("export", inputs)
    if stage.finished:
        released = target / stage.result["version"]
        damage = find_damage(released)
        if not damage:
            _say_skipped(stage)
            return Release.load(released)
        _logger.warning("export: done again, for %s is damaged: %s", released, "; ".join(damage))
        run.skipped.remove(stage.name)
    trained.model.temperature = evaluated.result["temperature"]
    release = export(
        trained.model,
        target,
        check_with=data.test,
        attack=None if attacked is None else Robustness.load(attacked.directory),
        budget=Budget(**config.verify.model_dump()),
        evaluation=evaluated.result["metrics"],
        config=config.model_dump(),
        data=data,
        seed=config.seed,
        **config.export.model_dump(),
    )
    stage.finish({"version": str(release.version)}, outputs=[str(release.path / "manifest.json")])
    return release


def _remove_working_files(directory: Path) -> None:
    """Removes what was kept to go on from."""
    for name in ("checkpoints", "features*"):
        for path in list(directory.rglob(name)):
            remove(path)


def _say_skipped(stage: Stage) -> None:
    _logger.info("%s: unchanged, skipped", stage.name)
