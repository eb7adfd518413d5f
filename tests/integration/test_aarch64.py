"""A text release on another processor; that of images is tried in `test_images.py`."""

import subprocess

import pytest
from aarch64 import check_answers_there

pytestmark = pytest.mark.qemu


def test_python_there_is_of_another_processor(aarch64):
    command = [str(aarch64 / "python"), "-c", "import platform; print(platform.machine())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "aarch64"


def test_golden_texts_are_answered_within_their_tolerance(aarch64, release, tmp_path, monkeypatch):
    variants = ("float32", "float16", "dynamic")
    check_answers_there(aarch64, release.path / "edge", variants, tmp_path, monkeypatch)
