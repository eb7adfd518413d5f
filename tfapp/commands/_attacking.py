"""What `tfapp attack` does: measures, and writes the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfapp.config import WorkflowConfig
from tfapp.config_sections import AttackSection
from tfapp.evaluation import evaluate_corruptions, evaluate_robustness, robustness_curve
from tfapp.evaluation.robustness import CorruptionAccuracy, Robustness, RobustnessCurve
from tfapp.evaluation.robustness.page import save_page
from tfapp.evaluation.robustness.settings import EMBEDDING_ATTACKS, WORD_ATTACKS
from tfapp.runs import write_json, writing_to

_logger = logging.getLogger("tfapp")
Table = tuple[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class AttackOutcome:
    """What the command has to say.

    Attributes:
        path: The report.
        lines: The figures, one string a line.
        tables: Titles and rows of tables.
    """

    path: Path
    lines: list[str]
    tables: tuple[Table, ...] = ()


def attack_workflow(
    config: WorkflowConfig,
    output: Path,
    *,
    curve: bool,
    corruptions: bool,
    **asked: Any,
) -> AttackOutcome:
    """Attacks the model that a finished run has trained, on its test rows.

    Args:
        config: The workflow.
        output: The folder that has ``runs/<name>``; the report goes to ``runs/<name>/attack-report``.
        curve: Whether to measure other budgets too.
        corruptions: Whether to measure accuracy under common corruptions too.
        **asked: ``name``, ``epsilon``, ``norm``, ``num_steps``, ``num_restarts``, ``max_queries``,
            ``max_seconds``, ``examples`` and ``seed``, None where the workflow file or the default decides.

    Returns:
        The figures and the report.

    Raises:
        TfappError: The run is not there or not finished, or a setting cannot be used.
    """
    from tfapp.workflow import open_trained

    trained = open_trained(config, output=output)
    section = config.evaluate.attack
    settings = {**({} if section is None else _of_file(section, asked["name"])), **_given(asked)}
    _logger.info("attack: %s on the test rows of %s", settings.get("attack", "standard"), config.name)
    measured = _measure(trained.model, trained.data.test, settings, curve=curve, corruptions=corruptions)
    measured = replace(measured, result=trained.with_alarms(measured.result))
    notes = [f"Model: the one trained by the workflow {config.name}. Rows: its test rows."]
    return _write(trained.directory / "attack-report", f"Robustness of {config.name}", measured, notes)


def attack_release_folder(
    release_dir: Path,
    output: Path | None,
    *,
    data: Path | None,
    column: str | None,
    label: str | None,
    curve: bool,
    corruptions: bool,
    black_box_queries: int,
    black_box_examples: int,
    **asked: Any,
) -> AttackOutcome:
    """Attacks a release: its Keras model, and with what fools it every artifact.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.
        output: Folder of the report; ``attack-<name>`` when None.
        data: Labelled rows; those that the release's run left when None.
        column: The column of texts or paths in them.
        label: The column of labels in them.
        curve: Whether to measure other budgets too.
        corruptions: Whether to measure accuracy under common corruptions too.
        black_box_queries: How often the attack on a TFLite or ONNX file may ask about a row.
        black_box_examples: On how many rows it is tried.
        **asked: As for `attack_workflow`.

    Returns:
        The figures and the report.

    Raises:
        TfappError: The release or the rows cannot be used, or a setting; or an artifact cannot be asked, and
            the report then has the figures of the model alone.
    """
    from tfapp.release.attack_release import attack_release_artifacts, open_release
    from tfapp.release.attacked import attack_settings, check_attack, check_sendable
    from tfapp.release.model_card import robustness_table

    release = open_release(release_dir, data, feature_column=column, label_column=label)
    settings = _given(asked)
    if settings.get("attack") not in EMBEDDING_ATTACKS:
        check_attack(attack_settings(settings), release.model)
    _logger.info("attack: %s on %s", settings.get("attack", "standard"), release.title)
    measured = _measure(release.model, release.split, settings, curve=curve, corruptions=corruptions)
    measured = replace(measured, result=release.with_alarms(measured.result))
    notes = list(release.notes)
    if measured.result.adversarial is None:
        notes.append(f"No artifact was asked: none takes {measured.result.domain}.")
    folder = Path(f"attack-{release.manifest['name']}") if output is None else output
    title = f"Robustness of {release.title}"
    outcome = _write(folder, title, measured, notes)
    if measured.result.adversarial is not None:
        check_sendable(measured.result, release.split)
        report, failed = attack_release_artifacts(
            release,
            measured.result,
            black_box_queries=black_box_queries,
            black_box_examples=black_box_examples,
        )
        rows = robustness_table(report.entries())
        outcome = _write(folder, title, measured, [*notes, *failed], rows)
    return outcome


@dataclass(frozen=True)
class _Measured:
    result: Robustness
    curve: RobustnessCurve | None
    corruptions: CorruptionAccuracy | None


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, by the names of `evaluate_robustness`."""
    return {"attack" if name == "name" else name: value for name, value in asked.items() if value is not None}


def _of_file(section: AttackSection, name: str | None) -> dict[str, Any]:
    """The settings of the workflow file that go with an attack.

    Args:
        section: The section of the attack.
        name: The attack that was asked for; None for that of the section.

    Returns:
        All of them for that very attack. For another one the rows, and the budget where both perturb pixels;
        its steps, restarts and limits are of its own.
    """
    if name in (None, section.attack):
        return section.model_dump()
    kept = {"examples", "seed"}
    if not {name, section.attack} & {*WORD_ATTACKS, *EMBEDDING_ATTACKS}:
        kept |= {"epsilon", "norm"}
    return section.model_dump(include=kept)


def _measure(
    model: Any, split: Any, settings: Mapping[str, Any], *, curve: bool, corruptions: bool
) -> _Measured:
    result = evaluate_robustness(model, split, **settings)
    curves = None
    if curve:
        shared = {name: value for name, value in settings.items() if name != "attack"}
        single = settings.get("attack", "standard")
        if single == "standard":  # the curve is of another attack, with settings of its own
            single, kept = "", ("epsilon", "norm", "examples", "seed")
            shared = {name: value for name, value in shared.items() if name in kept}
        curves = robustness_curve(model, split, attack=single, **shared)
    rows = {name: settings[name] for name in ("examples", "seed") if name in settings}
    return _Measured(result, curves, evaluate_corruptions(model, split, **rows) if corruptions else None)


def _write(
    folder: Path,
    title: str,
    measured: _Measured,
    notes: Sequence[str],
    rows: Sequence[Mapping[str, str]] = (),
) -> AttackOutcome:
    folder = folder.expanduser().resolve()
    content: dict[str, Any] = {"title": title, "notes": list(notes), **measured.result.to_dict()}
    lines = measured.result.lines()
    for name, part in (("curve", measured.curve), ("corruptions", measured.corruptions)):
        if part is not None:
            content[name] = part.to_dict()
            lines += ["", *part.lines()]
    if rows:
        content["artifacts"] = [dict(row) for row in rows]
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "report.json", content)
        path = save_page(
            folder,
            title,
            [measured.result],
            curve=measured.curve,
            artifacts=rows,
            corruptions=measured.corruptions,
            notes=notes,
        )
    return AttackOutcome(path, lines, (("what ships", rows),) if rows else ())
