"""Asking an artifact of a release about features, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from tfapp.disk import writing
from tfapp.errors import ReleaseError
from tfapp.release.answers import FloatArray
from tfapp.release.golden import Golden
from tfapp.release.layout import artifact_path
from tfapp.release.probe import Probe
from tfapp.release.processes import ArtifactRunner
from tfapp.release.released_model import load_preprocessor

RAW_VARIANTS = ("saved_model", "text")
"""Variants that take raw features; all others take tensors that a preprocessor made."""


def ask_artifact(directory: Path, golden: Golden, variant: str, features: Sequence[bytes]) -> FloatArray:
    """Asks one artifact of a release whose files were checked.

    Args:
        directory: The version folder.
        golden: Its golden vectors.
        variant: The artifact's variant.
        features: Raw features, 1 or more.

    Returns:
        Probabilities ``(rows, num_classes)``.

    Raises:
        ReleaseError: When the artifact cannot be run, or the release lacks what makes its tensors.
        OutputError: When the disk for temporary files is full.
    """
    with (
        writing(Path(tempfile.gettempdir()), full="free some space or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix="tfapp-ask-") as folder,
    ):
        (Path(folder) / "tensors").mkdir()
        if variant in RAW_VARIANTS:
            probe = Probe(features, {})
        else:
            probe = Probe.from_features(
                load_preprocessor(directory, golden),
                features,
                inputs=golden.tensors,
                folder=Path(folder) / "tensors",
            )
        with ArtifactRunner.of_release(Path(folder), golden, probe) as runner:
            runner.start(variant, directory / artifact_path(variant))
            answers = runner.answers()[variant]
    if answers.error is not None:
        raise ReleaseError(f"{directory}: {variant} {answers.error}")
    return answers.probabilities
