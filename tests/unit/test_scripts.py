"""The scripts that a newcomer runs first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import aarch64
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["scripts/demo", "scripts/test", "scripts/check", "scripts/aarch64_root", ".ci/run"]


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


@pytest.fixture
def foreign_script(tmp_path, monkeypatch):
    """Puts a script of the test in the place of the one that makes a Python for another processor."""
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(aarch64.shutil, "which", lambda name: name)
    monkeypatch.setattr(aarch64.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(aarch64, "_SCRIPT", tmp_path / "script")

    def write(body):
        (tmp_path / "script").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "script").chmod(0o755)

    return write


def test_only_what_is_missing_skips_the_tests_of_another_processor(foreign_script):
    foreign_script("echo 'no wheel' >&2; exit 69")
    with pytest.raises(pytest.skip.Exception, match="no wheel"):
        aarch64.make_aarch64()
    foreign_script("exit 1")
    with pytest.raises(pytest.fail.Exception, match="scripts/aarch64_root fails"):
        aarch64.make_aarch64()


def test_another_script_makes_another_folder_and_the_same_one_none(foreign_script):
    make = 'mkdir -p "$1"; [ ! -e "$1/python" ] || exit 1; : > "$1/python"'
    foreign_script(make)
    folder = aarch64.make_aarch64()
    assert aarch64.make_aarch64() == folder
    foreign_script(f"{make}; : changed")
    assert aarch64.make_aarch64() != folder


def test_without_debians_tools_the_script_says_so_with_its_own_status(tmp_path):
    for tool in ("sh", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = [str(tmp_path / "sh"), str(ROOT / "scripts" / "aarch64_root"), str(tmp_path / "made")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, "apt-get is not there" in done.stderr) == (aarch64._NOT_HERE, True)
    assert not (tmp_path / "made").exists()


# Stands in for a Python and for the one in the environment that it makes; notes what it is asked to do.
FAKE_PYTHON = """#!/bin/sh
folder=$(dirname "$(dirname "$0")")
case "$1 $2" in
    "-m venv")
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "VIRTUAL_ENV=$3" > "$3/bin/activate"
        echo venv >> "$NOTES" ;;
    "-m pip")
        [ ! -e "$folder/no-pip" ] || exit 1
        [ "$3" != install ] || echo install >> "$NOTES" ;;
    "- "*) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with what `make_environment` reads, and a stand-in for Python beside it."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("scripts/environment.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    return folder


def make_environment(clone: Path, extra: str = "dev") -> list[str]:
    """Calls the function in a clone and returns what it had to do."""
    notes = clone.parent / "notes"
    notes.write_text("")
    variables = {"PYTHON": str(clone.parent / "python"), "REAL_PYTHON": sys.executable, "NOTES": str(notes)}
    command = f". scripts/environment.sh && make_environment {extra}"
    subprocess.run(
        ["sh", "-c", command, "scripts/demo"], cwd=clone, env={**os.environ, **variables}, check=True
    )
    return notes.read_text().split()


def test_an_environment_is_made_once_and_installed_again_when_pins_change(clone):
    assert make_environment(clone) == ["venv", "install"]
    assert make_environment(clone) == []
    assert make_environment(clone, "base") == []
    assert make_environment(clone, "gpu") == ["install"]
    assert make_environment(clone) == []
    (clone / "constraints.txt").write_text("numpy==1.0\n")
    assert make_environment(clone, "base") == ["install"]


def test_an_environment_whose_making_was_interrupted_is_made_again(clone):
    make_environment(clone)
    (clone / ".venv" / "tfapp-environment").unlink()
    assert make_environment(clone) == ["install"]
    (clone / ".venv" / "tfapp-environment").unlink()
    (clone / ".venv" / "bin" / "activate").unlink()
    (clone / ".venv" / "no-pip").touch()
    assert make_environment(clone) == ["venv", "install"]
    assert make_environment(clone) == []


def test_an_environment_of_somebody_else_is_not_removed(clone):
    make_environment(clone)
    (clone / ".venv" / "tfapp-environment").unlink()
    (clone / ".venv" / "no-pip").touch()
    with pytest.raises(subprocess.CalledProcessError):
        make_environment(clone)
    assert (clone / ".venv" / "bin" / "activate").exists()


def test_another_tensorflow_gets_an_environment_of_its_own(clone, monkeypatch):
    make_environment(clone)
    monkeypatch.setenv("TFAPP_TENSORFLOW", "2.20")
    assert make_environment(clone) == ["venv", "install"]
    assert make_environment(clone) == []
    pins = (clone / ".venv-tensorflow-2.20" / "constraints.txt").read_text().splitlines()
    ours = (clone / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin not in ours] == ["tensorflow==2.20.*", "tensorflow-text==2.20.*"]
    assert "keras" in {pin.split("==")[0] for pin in pins}
    assert "tensorboard" not in {pin.split("==")[0] for pin in pins}


def test_a_copied_clone_gets_an_environment_of_its_own(clone, tmp_path):
    make_environment(clone)
    other = tmp_path / "copy"
    shutil.copytree(clone, other)
    assert make_environment(other) == ["venv", "install"]
    assert str(other) in (other / ".venv" / "bin" / "activate").read_text()
    assert make_environment(clone) == []


def test_the_pins_name_neither_hosts_nor_paths():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(pins) > 50
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in pins)
