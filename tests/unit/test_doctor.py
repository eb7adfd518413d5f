"""What the doctor finds wrong, and what it says about a machine."""

from __future__ import annotations

from importlib import metadata

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


def test_the_extras_are_those_of_the_package():
    assert set(doctor._EXTRAS) == set(metadata.metadata("tfapp").get_all("Provides-Extra"))


def test_this_environment_is_examined():
    findings = doctor.examine()
    facts = {name: value for section in findings.sections for name, value in section.rows}
    assert facts["tensorflow"] == metadata.version("tensorflow")
    assert "CPU:0" in facts["devices"]
    assert facts["precision = 'auto'"].split()[2] in ("float32", "mixed_bfloat16")
    assert not [warning for warning in findings.warnings if "cannot be imported" in warning]
