"""What the doctor finds wrong, and what it says about a machine."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from tfapp import doctor


def test_two_tensorflows_in_one_folder_are_told():
    warnings = doctor._package_warnings({"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"})
    assert len(warnings) == 1
    assert "overwrite each other" in warnings[0]


@pytest.mark.parametrize(("text", "count"), [("2.21.1", 0), ("2.20.1", 1)])
def test_a_tensorflow_text_of_another_version_is_told(text, count):
    assert len(doctor._package_warnings({"tensorflow": "2.21.0", "tensorflow-text": text})) == count


@pytest.mark.parametrize(("version", "count"), [((3, 10), 1), ((3, 11), 0), ((3, 13), 0), ((3, 14), 1)])
def test_python_outside_the_supported_range_is_told(version, count):
    assert len(doctor._python_warnings(version)) == count


def test_variables_that_spoil_training_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("TFAPP_DATA", str(tmp_path / "none"))
    assert len(doctor._environment_warnings()) == 3


def test_processor_features_are_told_by_name():
    features = dict(doctor.cpu_features(["avx2", "avx512f", "amx_bf16"]))
    assert features["AVX2"].startswith("yes")
    assert features["AMX BF16"].startswith("yes")
    assert features["AVX-512 VNNI"].startswith("no")
    assert doctor.cpu_features([]) == []


def test_a_file_that_another_process_removes_meanwhile_is_no_error(monkeypatch, tmp_path):
    """As a concurrent fetch does: the file is there when it is listed, and gone right after."""
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path))
    (tmp_path / "part").write_bytes(b"0" * 500_000)
    (tmp_path / "whole").write_bytes(b"0" * 2_000_000)
    stat, seen = os.stat, []

    def vanishing(path, *rest, **options):
        if Path(path).name == "part":
            seen.append(path)
            if len(seen) > 1:
                raise FileNotFoundError(path)
        return stat(path, *rest, **options)

    monkeypatch.setattr(os, "stat", vanishing)
    assert dict(doctor._storage().rows)["cache"].endswith("MB ($TFAPP_CACHE chooses another folder)")
    assert "2.0 MB" in dict(doctor._storage().rows)["cache"]


def test_the_extras_are_those_of_the_package():
    assert set(doctor._EXTRAS) == set(metadata.metadata("tfapp").get_all("Provides-Extra"))


def test_this_environment_is_examined():
    findings = doctor.examine()
    facts = {name: value for section in findings.sections for name, value in section.rows}
    assert facts["tensorflow"] == metadata.version("tensorflow")
    assert "CPU:0" in facts["devices"]
    assert facts["precision = 'auto'"].split()[2] in ("float32", "mixed_bfloat16")
    assert not [warning for warning in findings.warnings if "cannot be imported" in warning]
