"""The stage of a workflow that distils the trained model into a student, and what the student lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tfapp.config import WorkflowConfig
from tfapp.config_sections import DistillSection
from tfapp.runs import RunFolder, Stage
from tfapp.workflow_calls import read_unlabelled, train_options
from tfapp.workflow_devices import Devices
from tfapp.workflow_files import file_signature
from tfapp.workflow_training import Trained, is_finished, keep_trained, say_skipped

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.models import Classifier

_logger = logging.getLogger("tfapp")


class Distilled(Trained):
    """A trained student, which is only built again when a later stage needs it.

    Args:
        config: The workflow.
        classes: Names of the classes in their order.
        stage: The stage that trained it.
        teacher: Its teacher.
    """

    def __init__(
        self, config: WorkflowConfig, classes: Iterable[str], stage: Stage, teacher: Trained
    ) -> None:
        super().__init__(config, classes, stage)
        self.teacher = teacher

    def _build_untrained(self) -> Classifier:
        from tfapp.models.student import StudentParts, build_student

        return build_student(self.teacher.build(), StudentParts.from_dict(self.stage.result["parts"]))


def distil(
    config: WorkflowConfig,
    run: RunFolder,
    data: TextData | ImageData,
    teacher: Trained,
    devices: Devices | None = None,
) -> Trained:
    """Distils the trained model into a student.

    Args:
        config: The workflow.
        run: The run's folder.
        data: Its data.
        teacher: What was trained; its model stays as it is.
        devices: Where the student is trained; None where it is only looked for.

    Returns:
        The student; ``teacher`` itself where the workflow has no section ``distill``.

    Raises:
        TfappError: When a setting cannot be used, or training fails.
    """
    section = config.distill
    if section is None:
        return teacher
    unlabelled = None if section.unlabelled is None else config.resolve(section.unlabelled)
    inputs = {
        "upstream": teacher.stage.key,
        "distill": section.model_dump(),
        "unlabelled": [] if unlabelled is None else file_signature(unlabelled),
    }
    stage = run.stage("distill", inputs)
    student = Distilled(config, data.classes, stage, teacher)
    if is_finished(stage, devices):
        say_skipped(stage)
        return student
    assert devices is not None  # else a stage that is not finished is an error

    from tfapp.training import distill

    _logger.info("distill: %s", "continuing where it stood" if stage.resumes else "a student of the model")
    with devices.strategy.scope():
        model = teacher.model if devices.plain else teacher.build()
        made = distill(
            model,
            data,
            unlabelled=read_unlabelled(config),
            run_dir=stage.directory,
            seed=config.seed,
            **distill_options(config, section),
        )
    keep_trained(student, made.student, made.history, devices, parts=made.parts.to_dict())
    return student


def distill_options(config: WorkflowConfig, section: DistillSection) -> dict[str, Any]:
    """Gives the settings of a distillation.

    Args:
        config: The workflow.
        section: Its section ``distill``.

    Returns:
        Arguments of `tfapp.distill` by name, all but the texts.
    """
    given = train_options(config)
    for name in ("phases", "max_length", "augment", "views", "objective"):
        given.pop(name)
    own = section.model_dump(exclude={"unlabelled"})
    chosen = {name: own.pop(name) for name in ("batch_size", "patience")}
    return {**given, **{name: value for name, value in chosen.items() if value is not None}, **own}


def evaluate_teacher(
    config: WorkflowConfig, run: RunFolder, data: TextData | ImageData, trained: Trained
) -> dict[str, Any] | None:
    """Measures a student's teacher on the test split, as the student is measured.

    Args:
        config: The workflow.
        run: The run's folder.
        data: Its data.
        trained: What is measured.

    Returns:
        Scores of the teacher by name, the number of its parameters and of the student's, and the share of
        test rows to which both answer the same; None where there is no teacher.
    """
    if not isinstance(trained, Distilled):
        return None
    section = config.evaluate
    stage = run.stage(
        "evaluate-teacher",
        {"upstream": trained.stage.key, "evaluate": section.model_dump(exclude={"ledger", "attack"})},
    )
    if stage.finished:
        say_skipped(stage)
        return stage.result

    from tfapp.evaluation import evaluate, what_it_cost

    teacher, student = trained.teacher.model, trained.model
    _logger.info("evaluate-teacher: %d test rows", len(data.test))
    evaluation = evaluate(
        teacher,
        data.test,
        calibrate_with=data.validation if section.calibrate else None,
        batch_size=section.batch_size,
        num_bootstrap=section.num_bootstrap,
        seed=config.seed,
    )
    stage.finish(what_it_cost(evaluation, teacher, student, data.test))
    figures = stage.result
    _logger.info(
        "  accuracy %.4f with %.2f M parameters; the student has %.2f M and answers %.2f %% of rows alike",
        figures["accuracy"]["value"],
        figures["parameters"] / 1e6,
        figures["student_parameters"] / 1e6,
        100 * figures["agreement"],
    )
    return figures
