"""Released files on another processor: LiteRT for aarch64 under qemu, without TensorFlow or tfapp."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tfapp.assets import cache_dir
from tfapp.release.answers import differences
from tfapp.release.golden import Golden
from tfapp.release.processes import ArtifactRunner

_ROOT = Path(__file__).parents[1]
_SCRIPT = _ROOT / "scripts" / "aarch64_root"
# The script's exit status for a tool or a wheel that is not to be had here.
_NOT_HERE = 69


def make_aarch64() -> Path:
    """Returns the folder that `scripts/aarch64_root` makes, kept in the cache until script or pins change.

    Skips where what the script needs is not there; fails where the script does.
    """
    if platform.machine() == "aarch64":
        pytest.skip("this machine is an aarch64 one itself; all other tests run on one")
    if not (shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")):
        pytest.skip("qemu-aarch64 is not on the PATH; Debian has it in the package qemu-user")
    made_by = _SCRIPT.read_bytes() + (_ROOT / "constraints.txt").read_bytes()
    folder = cache_dir() / f"aarch64-{hashlib.sha256(made_by).hexdigest()[:16]}"
    if not (folder / "python").exists():
        command = ["env", f"PYTHON={sys.executable}", str(_SCRIPT), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == _NOT_HERE:
            pytest.skip(f"scripts/aarch64_root lacks something here: {done.stderr.strip()[-300:]}")
        if done.returncode:
            pytest.fail(f"scripts/aarch64_root fails: {done.stderr.strip()[-300:]}")
    return folder


def check_answers_there(
    aarch64: Path, edge: Path, variants: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lets the runner of releases answer golden vectors, with that Python and its libraries alone."""
    golden = Golden.load(edge / "golden.json")
    monkeypatch.setattr(sys, "executable", str(aarch64 / "python"))
    with ArtifactRunner.of_release(folder, golden) as runner:
        runner._request["paths"] = [str(aarch64 / "site")]
        for variant in variants:
            runner.start(variant, edge / f"model-{variant}.tflite")
        answers = runner.answers()
    for variant in variants:
        found, reference = answers[variant], golden.reference(variant)
        assert found.error is None
        assert differences(found, reference).max() <= golden.tolerance[variant], variant
        chosen = np.argmax(found.probabilities, axis=1)
        noted = np.take_along_axis(reference.probabilities, chosen[:, None], axis=1)[:, 0]
        # The same label, or one that was as probable but for the tolerance.
        assert (noted >= reference.probabilities.max(axis=1) - golden.tolerance[variant]).all(), variant
        assert "XNNPACK delegate" in (folder / variant / "stderr.txt").read_text(), variant
        assert set(found.libraries) == {"ai-edge-litert"}
