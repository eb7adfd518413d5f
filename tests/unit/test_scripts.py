"""The scripts that a newcomer runs first."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["scripts/demo", "scripts/test", "scripts/check", ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["sh", "-n", str(ROOT / script)], check=True)


def find_python(tmp_path: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Looks for a Python where only the given stand-ins exist, each of which is a shell script."""
    for tool in ("sh", "dirname", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for name, body in pythons.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    command = [str(tmp_path / "sh"), "-c", f". '{ROOT}/scripts/environment.sh'; find_python", "scripts/demo"]
    return subprocess.run(command, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True)


def test_without_a_suitable_python_the_error_tells_the_cure(tmp_path):
    found = find_python(tmp_path, python3="exit 1")
    assert found.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in found.stderr
    assert "PYTHON=" in found.stderr


def test_a_suitable_python_is_found_behind_an_unsuitable_one(tmp_path):
    found = find_python(tmp_path, python3="exit 1", **{"python3.12": "exit 0"})
    assert found.returncode == 0, found.stderr
    assert found.stdout == "python3.12\n"


def test_the_pins_name_neither_hosts_nor_paths():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(pins) > 50
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in pins)
