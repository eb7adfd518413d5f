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
from tfapp.exporters import LABELS, TFLITE_VARIANTS, label_file
from tfapp.release.answers import differences, find_flaw
from tfapp.release.gate import Budget, check_label_file, judge
from tfapp.release.golden import Golden
from tfapp.release.golden_images import ImageInputs
from tfapp.release.golden_texts import TextInputs
from tfapp.release.integrity import check_files, linked_files
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.manifest import check_sha256, manifest_checksum, read_manifest
from tfapp.release.packed_files import check_packed
from tfapp.release.processes import ArtifactRunner
from tfapp.release.versions import version_folder, version_number
from tfapp.release.vocabulary import check_vocabulary, vocabulary_file

_logger = logging.getLogger("tfapp")


NOT_PROVEN = "self-consistent, origin not proven"
_CURE = (
    "whoever can change the files can change the manifest with them; give the sha256 of the manifest that "
    "was printed at the release (--manifest-sha256, or manifest_sha256=... in Python)"
)


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    Attributes:
        manifest_sha256: The sha256 of the manifest that was looked at.
        proven: Whether that is what was asked for, so that this is the release that is meant.
        files_only: Whether nothing of the release was to be run.
        rows: One for each part of the release: ``part``, ``verdict`` and ``details``.
        reasons: What is wrong, a sentence each; empty when nothing is.
        notes: What is not wrong, but worth knowing, a sentence each.
    """

    manifest_sha256: str
    proven: bool
    files_only: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons

    @property
    def summary(self) -> str:
        """The outcome in a line."""
        if not self.ok:
            return f"refused: {len(self.reasons)} {'reason' if len(self.reasons) == 1 else 'reasons'}"
        found = "verified, and the release that is meant" if self.proven else NOT_PROVEN
        return f"{found}; its answers were not looked at" if self.files_only else found

    def table(self) -> list[dict[str, str]]:
        """Returns a row for each part, for people to read."""
        return [dict(row) for row in self.rows]

    def lines(self) -> list[str]:
        """Returns the report as lines of text."""
        return [f"{row['part']}: {row['verdict']} ({row['details']})" for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report, ready for JSON."""
        return {
            "ok": self.ok,
            "origin_proven": self.proven,
            "manifest_sha256": self.manifest_sha256,
            "files_only": self.files_only,
            "summary": self.summary,
            "parts": self.table(),
            "reasons": list(self.reasons),
            "notes": list(self.notes),
        }

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


def verify(
    release_dir: str | Path, *, manifest_sha256: str | None = None, files_only: bool = False
) -> VerifyReport:
    """Checks a release again: origin, schema, files, then the answers to its golden vectors.

    Each artifact answers in a fresh process. Nothing is run from a release whose files are not those of its
    manifest, nor from one whose manifest is not the one that is meant; one that changes meanwhile fails.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.
        manifest_sha256: The sha256 of its ``manifest.json``, printed when it was released. Without it a
            release that somebody has replaced as a whole cannot be told from the true one.
        files_only: Leaves the answers out, so that nothing of the release is run.

    Returns:
        The report.

    Raises:
        ReleaseError: When there is no release, or its manifest cannot be read.
        ConfigError: When ``manifest_sha256`` is no sha256.
        OutputError: When the disk for temporary files is full.
        DataError: When a golden image cannot be decoded here.
    """
    directory = version_folder(release_dir)
    found = manifest_checksum(directory)
    proven = manifest_sha256 is not None and check_sha256(manifest_sha256) == found
    report = VerifyReport(found, proven, files_only)
    if manifest_sha256 is not None and not proven:
        wrong = f"the sha256 of its manifest is {found}, not {manifest_sha256}: it is another release"
        report.add("origin", [wrong], "")
        return report
    # The bytes that are read are those of this checksum, whoever writes into the folder meanwhile.
    manifest = read_manifest(directory, manifest_sha256=found)
    if proven:
        report.add("origin", [], f"the manifest has the sha256 {found}")
    else:
        report.rows.append({"part": "origin", "verdict": "not proven", "details": _CURE})
    _check_folder(directory, manifest, report)
    _logger.info("verify: %d files compared with their checksums", len(manifest["files"]))
    if not report.ok or files_only:
        return report
    try:
        golden = Golden.load(directory / GOLDEN_FILE)
    except ReleaseError as error:
        report.add("golden.json", [str(error)], "")
        return report
    _check_edge(directory, golden, report)
    _check_packed(directory, manifest, golden, report)
    _check_answers(directory, manifest, golden, report)
    # Files are opened by name, minutes after they were hashed: what answered must still be what was hashed.
    changed = check_files(directory, manifest["files"])
    if changed:
        report.add("files, after the answers", changed, "")
    return report


def _check_folder(directory: Path, manifest: Mapping[str, Any], report: VerifyReport) -> None:
    state, version = manifest["release"], manifest["version"]
    refused = [f"the release was refused: {reason}" for reason in state["reasons"] or ["no reason is given"]]
    report.add("manifest", refused if state["verdict"] == "refused" else [], f"version {version}")
    wrong = check_files(directory, manifest["files"])
    report.add("files", wrong, f"{len(manifest['files'])} files as listed")
    if wrong:
        return
    linked = linked_files(directory)
    if linked:
        report.notes.append(
            f"{len(linked)} of the files have a second name elsewhere (hard links), through which they can "
            f"be changed, such as {linked[0]}."
        )
    number = version_number(directory)
    if version is not None and number not in (None, version):
        report.notes.append(f"The folder is called {number}, but was released as version {version}.")


def _check_edge(directory: Path, golden: Golden, report: VerifyReport) -> None:
    labels = directory / "edge" / "labels.txt"
    if labels.is_file():
        wrong = check_label_file(labels.read_bytes(), golden.classes)
        report.add("labels.txt", [wrong] if wrong else [], f"{len(golden.classes)} classes")
    if isinstance(golden.inputs, ImageInputs):
        changed = golden.inputs.changed()
        wrong = (
            f"golden.json: {changed} of {len(golden.inputs)} images are decoded to other pixels than noted"
        )
        report.add("golden images", [wrong] if changed else [], f"the pixels of {len(golden.inputs)} images")
    vocabulary = _vocabulary(directory, golden)
    if vocabulary is not None and isinstance(golden.inputs, TextInputs):
        wrong = check_vocabulary(
            vocabulary.read_bytes(),
            golden.inputs.texts,
            [windows[0] for windows in golden.inputs.token_ids],
            golden.inputs.preprocessor,
        )
        report.add(vocabulary.name, [wrong] if wrong else [], f"the ids of {len(golden.inputs)} texts")


def _vocabulary(directory: Path, golden: Golden) -> Path | None:
    """Finds the file with the vocabulary of a text model; None where there is none."""
    if not isinstance(golden.inputs, TextInputs):
        return None
    path = directory / "edge" / vocabulary_file(golden.inputs.preprocessor)
    return path if path.is_file() else None


def _check_packed(directory: Path, manifest: Mapping[str, Any], golden: Golden, report: VerifyReport) -> None:
    files = {LABELS: label_file(golden.classes)}
    vocabulary = _vocabulary(directory, golden)
    if vocabulary is not None:
        files[vocabulary.name] = vocabulary.read_bytes()
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
        ArtifactRunner.of_release(Path(folder), golden) as runner,
    ):
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
