"""The workflow in one straight line: prepare, transfer, evaluate, export and verify.

Each stage writes into its own folder below ``runs/<name>`` and is skipped when nothing that it depends on
has changed, so a killed run continues at the stage, and within training at the epoch, where it stood.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfapp.config import PhaseSection, WorkflowConfig
from tfapp.runs import RunFolder, Stage, open_run, remove, writing_to

if TYPE_CHECKING:
    from tfapp.data.text import TextData
    from tfapp.models import Classifier
    from tfapp.release import Release
    from tfapp.training import Phase

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


def run_workflow(config: WorkflowConfig, *, output: str | Path = ".", fresh: bool = False) -> WorkflowResult:
    """Runs every stage that has something to do.

    Args:
        config: What to run.
        output: Folder that gets ``runs/<name>/`` and ``saved_models/<name>/<version>/``.
        fresh: Starts anew instead of continuing an earlier run.

    Returns:
        The release and where everything lies.

    Raises:
        TfappError: The data, the backbone, or the output folder cannot be used.
        ReleaseRefused: An artifact went beyond its budget.
    """
    output = Path(output).expanduser().resolve()
    releases = output / "saved_models"
    with writing_to(releases):
        releases.mkdir(parents=True, exist_ok=True)
    with open_run(output / "runs" / config.name, fresh=fresh) as run:
        data = _prepare(config, run)
        trained = _transfer(config, run, data)
        evaluated = _evaluate(config, run, data, trained)
        release = _export(config, run, data, trained, evaluated, releases / config.name)
        return WorkflowResult(release, evaluated.result["metrics"], run.directory, tuple(run.skipped))


def _prepare(config: WorkflowConfig, run: RunFolder) -> TextData:
    """Reads, cleans and splits the texts."""
    from tfapp.data.text import TextData, load_text_data

    section = config.data
    paths = {
        name: config.resolve(path)
        for name in ("train", "validation", "test")
        if (path := getattr(section, name)) is not None
    }
    inputs = {
        "data": section.model_dump(exclude={"max_length", "long_texts"}),
        "seed": config.seed,
        "files": {name: _signature(path) for name, path in paths.items()},
    }
    stage = run.stage("prepare", inputs)
    if stage.finished:
        _say_skipped(stage)
        return TextData.load(stage.directory / "data")
    _logger.info("prepare: reading %s", section.dataset or paths["train"])
    data = load_text_data(
        section.dataset or paths["train"],
        text=section.text,
        label=section.label,
        validation=paths.get("validation"),
        test=paths.get("test"),
        format=section.format,
        encoding=section.encoding,
        validation_fraction=section.validation_fraction,
        test_fraction=section.test_fraction,
        seed=config.seed,
    )
    for line in data.report.lines():
        _logger.info("  %s", line)
    data.save(stage.directory / "data")
    stage.finish({"fingerprint": data.fingerprint}, outputs=["data"])
    return data


class _Trained:
    """A fine-tuned model, which is only built again when a later stage needs it."""

    def __init__(self, config: WorkflowConfig, classes: Iterable[str], stage: Stage) -> None:
        self.stage = stage
        self._config = config
        self._classes = tuple(classes)

    @cached_property
    def model(self) -> Classifier:
        model = _build(self._config, self._classes)
        model.load_weights(self.stage.directory / _WEIGHTS)
        model.preprocessor.max_length = self.stage.result["lengths"]["max_length"]
        return model


def _transfer(config: WorkflowConfig, run: RunFolder, data: TextData) -> _Trained:
    """Fine-tunes the backbone in phases."""
    inputs = {
        "data": data.fingerprint,
        "seed": config.seed,
        "max_length": config.data.max_length,
        "long_texts": config.data.long_texts,
        "model": config.model.model_dump(),
        "files": _signature(config.resolve_backbone()),
        "transfer": config.transfer.model_dump(),
        "train": config.train.model_dump(),
    }
    stage = run.stage("transfer", inputs)
    trained = _Trained(config, data.classes, stage)
    if stage.finished:
        _say_skipped(stage)
        return trained

    import keras

    from tfapp.release.artifacts import choose_variants
    from tfapp.training import train

    _logger.info("transfer: %s", "continuing where it stood" if stage.resumes else config.model.backbone)
    keras.utils.set_random_seed(config.seed)
    model = _build(config, data.classes)
    if config.export.variants is not None:
        choose_variants(model, config.export.variants)  # refused before the work, not after it
    phases = config.transfer.phases
    history = train(
        model,
        data,
        phases=None if phases is None else [_phase(phase) for phase in phases],
        max_length=config.data.max_length,
        run_dir=stage.directory,
        seed=config.seed,
        **config.train.model_dump(),
    )
    partial = stage.directory / f"partial-{_WEIGHTS}"
    model.save_weights(partial)
    os.replace(partial, stage.directory / _WEIGHTS)
    result = {"lengths": dict(vars(history.lengths)), "precision": history.precision}
    stage.finish(result, outputs=[_WEIGHTS])
    for name in ("checkpoints", "features"):
        remove(stage.directory / name)
    trained.model = model
    return trained


def _evaluate(config: WorkflowConfig, run: RunFolder, data: TextData, trained: _Trained) -> Stage:
    """Calibrates the model on the validation split and measures it on the test split."""
    section = config.evaluate
    stage = run.stage("evaluate", {"upstream": trained.stage.key, "evaluate": section.model_dump()})
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


def _export(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData,
    trained: _Trained,
    evaluated: Stage,
    target: Path,
) -> Release:
    """Writes, verifies and releases the artifacts."""
    from tfapp.release import Budget, Release, export
    from tfapp.release.manifest import find_damage

    inputs = {
        "upstream": evaluated.key,
        "export": config.export.model_dump(),
        "verify": config.verify.model_dump(),
        "target": str(target),
    }
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
        variants=config.export.variants,
        budget=Budget(**config.verify.model_dump()),
        evaluation=evaluated.result["metrics"],
        config=config.model_dump(),
        data=data,
        seed=config.seed,
    )
    stage.finish({"version": str(release.version)}, outputs=[str(release.path / "manifest.json")])
    return release


def _build(config: WorkflowConfig, classes: Iterable[str]) -> Classifier:
    """Builds the classifier on its pretrained backbone."""
    from tfapp.models import build_text_classifier

    return build_text_classifier(
        config.resolve_backbone(),
        classes=tuple(classes),
        max_length=config.data.max_length,
        long_texts=config.data.long_texts,
        seed=config.seed,
        **config.model.model_dump(exclude={"backbone"}),
    )


def _phase(section: PhaseSection) -> Phase:
    from tfapp.training import Phase

    part = section.train if isinstance(section.train, str) else section.train.top
    return Phase(train=part, epochs=section.epochs, learning_rate=section.learning_rate)


def _signature(path: str) -> list[tuple[str, int, int]]:
    """Tells the files at a path or glob by name, size and time of change, so that a new file is noticed.

    As for the readers, what exists is meant as such, though its name may hold signs of a pattern.
    """
    found = [Path(path)] if Path(path).exists() else map(Path, glob.glob(path, recursive=True))
    files = [inner for match in found for inner in (match.rglob("*") if match.is_dir() else [match])]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _say_skipped(stage: Stage) -> None:
    _logger.info("%s: unchanged, skipped", stage.name)
