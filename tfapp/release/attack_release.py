"""Attacking a release that lies on disk: its Keras model, and with its examples every artifact."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfapp.disk import writing
from tfapp.errors import DataError
from tfapp.evaluation.alarms import OVERFITTED, Alarm
from tfapp.evaluation.robustness import Robustness
from tfapp.release.attack_report import AttackReport
from tfapp.release.attacked import attack_artifacts
from tfapp.release.golden import Golden
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import read_manifest
from tfapp.release.processes import ArtifactRunner
from tfapp.release.released_model import ReleasedModel, load_released_model
from tfapp.release.rows_at_hand import are_checked, are_rows, describe_rows, read_rows, run_rows
from tfapp.release.versions import version_folder

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class ReleaseUnderAttack:
    """A release, its model, and the rows to attack.

    Attributes:
        directory: The version folder.
        manifest: What ``manifest.json`` says.
        model: The Keras model with its preprocessor.
        split: The rows.
        notes: Where model and rows come from, a sentence each.
    """

    directory: Path
    manifest: dict[str, Any]
    model: ReleasedModel
    split: Any
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.manifest['name']} {self.manifest['version'] or '(refused)'}"

    def with_alarms(self, robustness: Robustness) -> Robustness:
        """Puts what the manifest says was found in training beside a robust accuracy of the model.

        Args:
            robustness: The figures.

        Returns:
            The same, with such alarms if that was looked for.
        """
        stated = self.manifest["metrics"].get("robustness")
        if stated is None or OVERFITTED not in stated["checked"]:
            return robustness
        alarms = [
            Alarm(OVERFITTED, robustness.attack, alarm["message"])
            for alarm in stated["alarms"]
            if alarm["name"] == OVERFITTED
        ]
        return robustness.joined_by(alarms, checked=OVERFITTED)


def open_release(
    release_dir: str | Path,
    data: str | Path | None = None,
    *,
    feature_column: str | None = None,
    label_column: str | None = None,
) -> ReleaseUnderAttack:
    """Loads a release's model and the rows to attack.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.
        data: A source of labelled rows; when None, the release's own test rows, where the run that made it
            left them beside ``saved_models``.
        feature_column: The column of texts or paths; that of the release's workflow when None.
        label_column: The column of labels; that of the release's workflow when None.

    Returns:
        The release.

    Raises:
        ReleaseError: When there is no release, or its files are damaged or not enough.
        DataError: When there are no rows, or they cannot be read or are of other classes.
    """
    directory = version_folder(release_dir)
    manifest = read_manifest(directory)
    model = load_released_model(directory)
    source = run_rows(directory, manifest) if data is None else data
    if source is None or (data is None and not are_rows(Path(source))):
        raise DataError(
            f"{directory}: the rows to attack are not at hand: there is no {source or 'folder of its run'}, "
            "which a run leaves. Give labelled rows with --data."
        )
    split = read_rows(
        source,
        model.classes,
        manifest,
        feature=model.preprocessor.feature_name,
        feature_column=feature_column,
        label_column=label_column,
    )
    if data is None and not are_checked(split, manifest):
        raise DataError(
            f"{source} holds other test rows than the release was checked with; give those with --data."
        )
    rows = describe_rows(split, source, manifest)
    return ReleaseUnderAttack(
        directory, manifest, model, split, [f"Model: the Keras file of the release. Rows: {rows}."]
    )


def attack_release_artifacts(
    release: ReleaseUnderAttack,
    robustness: Robustness,
    *,
    black_box_queries: int = 200,
    black_box_examples: int = 50,
) -> tuple[AttackReport, list[str]]:
    """Sends adversarial examples to every artifact of a release, and attacks its TFLite and ONNX files.

    Args:
        release: The release.
        robustness: The attack on its Keras model.
        black_box_queries: How often the attack on a TFLite or ONNX file may ask about a row; 0 leaves it out.
        black_box_examples: On how many rows it is tried.

    Returns:
        What is left of each, and what kept artifacts from answering.

    Raises:
        OutputError: When the disk for temporary files is full.
    """
    directory = release.directory
    golden = Golden.load(directory / GOLDEN_FILE)
    with (
        writing(Path(tempfile.gettempdir()), full="free some space or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix="tfapp-attack-") as folder,
        ArtifactRunner.of_release(Path(folder), golden) as runner,
    ):
        for row in release.manifest["artifacts"]:
            runner.start(row["variant"], directory / row["path"])
        report = attack_artifacts(
            release.model,
            robustness,
            release.split,
            runner,
            black_box_queries=black_box_queries,
            black_box_examples=black_box_examples,
        )
        failed = [
            f"{variant}: {answers.error}"
            for variant, answers in runner.answers().items()
            if answers.error is not None
        ]
    for line in failed:
        _logger.warning("attack: %s", line)
    return report, failed
