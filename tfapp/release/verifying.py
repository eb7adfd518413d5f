"""Verification of a release folder: the manifest, every file's checksum, every artifact's answers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tfapp.disk import writing
from tfapp.errors import ReleaseError
from tfapp.exporters import LABELS, TFLITE_VARIANTS, VOCABULARY, label_file
from tfapp.release.answers import differences, find_flaw
from tfapp.release.gate import Budget, check_label_file, judge
from tfapp.release.golden import Golden
from tfapp.release.golden_images import ImageInputs
from tfapp.release.golden_texts import TextInputs
from tfapp.release.manifest import check_files, listing, read_manifest, version_folder
from tfapp.release.packed_files import check_packed
from tfapp.release.processes import ArtifactRunner
from tfapp.release.vocabulary import check_vocabulary

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        rows: One for each part of the release: ``part``, ``verdict`` and ``details``.
        reasons: What is wrong, a sentence each; empty when nothing is.
    """

    rows: list[dict[str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons

    def table(self) -> list[dict[str, str]]:
        """Returns a row for each part, for people to read."""
        return [dict(row) for row in self.rows]

    def lines(self) -> list[str]:
        """Returns the report as lines of text."""
        return [f"{row['part']}: {row['verdict']} ({row['details']})" for row in self.rows]

    def add(self, part: str, reasons: list[str], details: str) -> None:
        """Notes one part.

        Args:
            part: What was looked at.
            reasons: What is wrong with it.
            details: What was found when nothing is wrong.
        """
        verdict = "refused" if reasons else "ok"
        self.rows.append({"part": part, "verdict": verdict, "details": "; ".join(reasons) or details})
        self.reasons.extend(reasons)


def verify(release_dir: str | Path) -> VerifyReport:
    """Checks a release again: schema, files, then the answers to its golden vectors in fresh processes.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.

    Returns:
        The report. Nothing is run from a release whose files are not those of its manifest.

    Raises:
        ReleaseError: When there is no release, or its manifest cannot be read.
        OutputError: When the disk for temporary files is full.
        DataError: When a golden image cannot be decoded here.
    """
    directory = version_folder(release_dir)
    manifest = read_manifest(directory)
    report = VerifyReport()
    state = manifest["release"]
    refused = [f"the release was refused: {reason}" for reason in state["reasons"] or ["no reason is given"]]
    report.add("manifest", refused if state["verdict"] == "refused" else [], f"version {manifest['version']}")
    present = listing(directory)
    wrong = check_files(directory, manifest["files"], present=present)
    paths = [row["path"] for row in manifest["artifacts"]]
    wrong += [f"artifact {path} is no file of the release" for path in paths if path not in {".", *present}]
    report.add("files", wrong, f"{len(present)} files as listed")
    _logger.info("verify: %d files compared with their checksums", len(present))
    if not report.ok:
        return report
    try:
        golden = Golden.load(directory / "edge" / "golden.json")
    except ReleaseError as error:
        report.add("golden.json", [str(error)], "")
        return report
    _check_edge(directory, golden, report)
    _check_packed(directory, manifest, golden, report)
    _check_answers(directory, manifest, golden, report)
    return report


def _check_edge(directory: Path, golden: Golden, report: VerifyReport) -> None:
    labels, vocabulary = directory / "edge" / "labels.txt", directory / "edge" / "vocab.txt"
    if labels.is_file():
        wrong = check_label_file(labels.read_bytes(), golden.classes)
        report.add("labels.txt", [wrong] if wrong else [], f"{len(golden.classes)} classes")
    if isinstance(golden.inputs, ImageInputs):
        changed = golden.inputs.changed()
        wrong = (
            f"golden.json: {changed} of {len(golden.inputs)} images are decoded to other pixels than noted"
        )
        report.add("golden images", [wrong] if changed else [], f"the pixels of {len(golden.inputs)} images")
    if vocabulary.is_file() and isinstance(golden.inputs, TextInputs):
        wrong = check_vocabulary(
            vocabulary.read_bytes(),
            golden.inputs.texts,
            [windows[0] for windows in golden.inputs.token_ids],
            golden.inputs.preprocessor,
        )
        report.add("vocab.txt", [wrong] if wrong else [], f"the ids of {len(golden.inputs)} texts")


def _check_packed(directory: Path, manifest: Mapping[str, Any], golden: Golden, report: VerifyReport) -> None:
    files = {LABELS: label_file(golden.classes)}
    vocabulary = directory / "edge" / VOCABULARY
    if vocabulary.is_file():
        files[VOCABULARY] = vocabulary.read_bytes()
    variants = [row["variant"] for row in manifest["artifacts"]]
    if set(variants) & set(TFLITE_VARIANTS):
        wrong = check_packed(directory, variants, files)
        report.add("metadata", wrong, f"{' and '.join(files)} inside the TFLite files")


def _check_answers(
    directory: Path, manifest: Mapping[str, Any], golden: Golden, report: VerifyReport
) -> None:
    artifacts = {row["variant"]: directory / row["path"] for row in manifest["artifacts"]}
    # Near a tie another processor may choose another class, and each variant has its tolerance below.
    allowed = Budget(**manifest["release"]["budget"])
    lenient = replace(allowed, min_agreement=0.0, max_accuracy_drop=1.0, max_abs_difference=None)

    with (
        writing(Path(tempfile.gettempdir()), full="free some space or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix="tfapp-verify-") as folder,
    ):
        runner = ArtifactRunner(
            Path(folder),
            golden.probe(),
            feature=golden.feature,
            tensor_endpoint=golden.tensor_endpoint,
            temperature=golden.temperature,
            time_calls=False,
        )
        with runner:
            for variant, path in artifacts.items():
                runner.start(variant, path)
            answers = runner.answers()
    for variant, answer in answers.items():
        reference = golden.reference(variant)
        reasons = list(judge(variant, answer, reference, lenient).reasons)
        if find_flaw(answer, reference):
            report.add(variant, reasons, "")
            continue
        gap, tolerance = float(differences(answer, reference).max()), golden.tolerance.get(variant)
        if tolerance is None or gap > tolerance:
            limit = "there is no tolerance for it" if tolerance is None else f"more than {tolerance:.5f}"
            reasons.append(f"{variant}: a probability of the golden vectors differs by {gap:.5f}, {limit}")
        report.add(variant, reasons, f"golden vectors differ by at most {gap:.5f}")
