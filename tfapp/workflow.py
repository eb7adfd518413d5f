"""The workflow in one straight line: prepare, transfer, harden, distill, evaluate, export and verify.

Each stage writes into its own folder below ``runs/<name>`` and is skipped when nothing that it depends on
has changed, so a killed run continues at the stage, and within training at the epoch, where it stood.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfapp.config import WorkflowConfig
from tfapp.runs import RunFolder, Stage, open_run, writing_to
from tfapp.workflow_calls import build_classifier, train_options
from tfapp.workflow_checks import check_stages
from tfapp.workflow_devices import open_devices
from tfapp.workflow_distilling import distil, evaluate_teacher
from tfapp.workflow_training import (
    Trained,
    harden,
    prepare,
    prepare_source,
    remove_working_files,
    say_skipped,
    transfer,
)

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.evaluation import Robustness
    from tfapp.models import Classifier
    from tfapp.release import Release
    from tfapp.training import SourceTask

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class WorkflowResult:
    """What a workflow has made.

    Attributes:
        release: The verified release.
        metrics: Scores of the trained model on the test split, and those of its teacher as ``teacher`` where
            it was distilled.
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
        with_alarms: Puts what was found in training beside a robust accuracy of the model.
    """

    model: Classifier
    data: TextData | ImageData
    directory: Path
    with_alarms: Callable[[Robustness], Robustness]


def run_workflow(
    config: WorkflowConfig, *, output: str | Path = ".", fresh: bool = False
) -> WorkflowResult | None:
    """Runs every stage that has something to do.

    Of several workers each prepares the data and trains, in a run folder of its own; the chief alone
    evaluates and releases.

    Args:
        config: What to run.
        output: Folder that gets ``runs/<name>/`` and ``saved_models/<name>/<version>/``.
        fresh: Starts anew instead of continuing an earlier run.

    Returns:
        The release and where everything lies; None on a worker that is not the chief.

    Raises:
        TfappError: A setting, the data, the backbone, its weights, or the output folder cannot be used.
        ReleaseRefused: An artifact went beyond its budget.
    """
    check_stages(config)
    output = Path(output).expanduser().resolve()
    releases = output / "saved_models"
    with writing_to(releases):
        releases.mkdir(parents=True, exist_ok=True)
    devices = open_devices(config)
    with open_run(devices.run_folder(output, config.name), fresh=fresh) as run:
        data = prepare(config, run, config.data)
        source = prepare_source(config, run, data)
        transferred = transfer(config, run, data, source, devices)
        hardened = harden(config, run, data, transferred, devices)
        trained = distil(config, run, data, hardened, devices)
        if not devices.workers.chief:
            return None
        evaluated = _evaluate(config, run, data, trained)
        teacher = evaluate_teacher(config, run, data, trained)
        attacked = _attack(config, run, data, trained, evaluated)
        if config.evaluate.ledger:
            _ledger(config, run, data, source, transferred)
        scores = evaluated.result["metrics"] | ({} if teacher is None else {"teacher": teacher})
        release = _export(config, run, data, trained, evaluated, attacked, scores, releases / config.name)
        return WorkflowResult(release, scores, run.directory, tuple(run.skipped))


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
        data = prepare(config, run, config.data)
        source = prepare_source(config, run, data)
        trained = distil(config, run, data, harden(config, run, data, transfer(config, run, data, source)))
        evaluated = _evaluate(config, run, data, trained)
        trained.model.temperature = evaluated.result["temperature"]
        return TrainedRun(trained.model, data, run.directory, trained.with_alarms)


def _evaluate(config: WorkflowConfig, run: RunFolder, data: TextData | ImageData, trained: Trained) -> Stage:
    """Calibrates the model on the validation split and measures it on the test split."""
    section = config.evaluate
    stage = run.stage(
        "evaluate",
        {"upstream": trained.stage.key, "evaluate": section.model_dump(exclude={"ledger", "attack"})},
    )
    if stage.finished:
        say_skipped(stage)
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
    trained: Trained,
    evaluated: Stage,
) -> Stage | None:
    """Attacks the model on test rows, and keeps what the attack made of them for the artifacts."""
    section = config.evaluate.attack
    if section is None:
        return None
    stage = run.stage("attack", {"upstream": evaluated.key, "attack": section.model_dump()})
    if stage.finished:
        say_skipped(stage)
        return stage

    from tfapp.evaluation import evaluate_robustness
    from tfapp.evaluation.robustness.page import save_page

    _logger.info("attack: %s on up to %d test rows", section.attack, section.examples)
    trained.model.temperature = evaluated.result["temperature"]
    robustness = evaluate_robustness(trained.model, data.test, **section.model_dump())
    robustness = trained.with_alarms(robustness)
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
    trained: Trained,
) -> None:
    """Compares the ways of training: from scratch, frozen, fine-tuned, and beside the source task."""
    section = config.evaluate
    inputs = {"upstream": trained.stage.key, "num_bootstrap": section.num_bootstrap}
    stage = run.stage("ledger", inputs)
    if stage.finished:
        say_skipped(stage)
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
    remove_working_files(stage.directory)


def _export(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    trained: Trained,
    evaluated: Stage,
    attacked: Stage | None,
    scores: Mapping[str, Any],
    target: Path,
) -> Release:
    """Writes, verifies and releases the artifacts."""
    from tfapp.evaluation import Robustness
    from tfapp.release import Budget, Release, export
    from tfapp.release.integrity import find_damage

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
        damage = find_damage(released, manifest_sha256=stage.result.get("manifest_sha256"))
        if not damage:
            say_skipped(stage)
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
        evaluation=scores,
        config=config.model_dump(),
        data=data,
        seed=config.seed,
        **config.export.model_dump(),
    )
    stage.finish(
        {"version": str(release.version), "manifest_sha256": release.manifest_sha256},
        outputs=[str(release.path / "manifest.json")],
    )
    return release
