"""What the doctor finds wrong, and what it says about a machine."""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

from tfapp import doctor
from tfapp.doctor_warnings import (
    environment_warnings,
    package_warnings,
    python_warnings,
    quota_warnings,
)


def install(folder, name, version):
    """Puts a package into a folder as far as the system knows of packages."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


BROKEN = {
    "tensorflow beside tensorflow-cpu": (
        {"packages": {"tensorflow-cpu": "2.21.0"}},
        r"tensorflow-cpu is installed beside tensorflow.*pip uninstall tensorflow-cpu tensorflow",
    ),
    "tensorflow beside tensorflow-tpu": (
        {"packages": {"tensorflow-tpu": "2.20.0"}},
        r"tensorflow-tpu is installed beside tensorflow.*environment of its own",
    ),
    "TensorFlow Text of another version": (
        {"packages": {"tensorflow-text": "2.18.1"}},
        r"tensorflow-text 2\.18\.1 does not fit TensorFlow .*same version",
    ),
    "Keras 2": ({"packages": {"keras": "2.15.0"}}, r"Keras 2\.15\.0 is installed.*pip install 'keras>=3"),
    "Keras 2 by a variable": ({"environ": {"TF_USE_LEGACY_KERAS": "1"}}, "TF_USE_LEGACY_KERAS.*unset it"),
    "setuptools without pkg_resources": (
        {"packages": {"tensorflow-hub": "0.16.1"}, "missing": "pkg_resources"},
        r"imports pkg_resources.*pip install 'setuptools<82'",
    ),
    "an old driver": (
        {"driver": "470.57.02"},
        r"driver 470\.57\.02 is older than 525\.60\.13.*install a newer driver",
    ),
    "a GPU without CUDA's libraries": ({"driver": "560.35.03"}, r"pip install 'tfapp\[gpu\]'"),
    "a hidden GPU": (
        {"driver": "560.35.03", "environ": {"CUDA_VISIBLE_DEVICES": "-1"}},
        "CUDA_VISIBLE_DEVICES='-1' hides.*unset it",
    ),
    "a TPU without tensorflow-tpu": (
        {"environ": {"TPU_NAME": "mine"}},
        r"TPU_NAME=mine.*tensorflow-tpu 2\.20",
    ),
    "a TPU that is not there": (
        {"environ": {"TPU_NAME": "mine"}, "packages": {"tensorflow-tpu": "2.20.0"}},
        r"the TPU 'mine' of TPU_NAME cannot be reached \(.+\): see that it is READY",
    ),
    "a cluster without workers": (
        {"environ": {"TF_CONFIG": '{"cluster": {}}'}},
        "TF_CONFIG cannot be read.*unset it",
    ),
    "a worker that is none": (
        {
            "environ": {
                "TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}'
            }
        },
        "this is worker 2 of 2, which are numbered from 0",
    ),
    "a full disk": ({"free": 1_200_000_000}, r"has 1\.2 GB of free space.*TFAPP_CACHE"),
    "too many threads": ({"environ": {"TF_NUM_INTRAOP_THREADS": "512"}}, "TF_NUM_INTRAOP_THREADS=512.*unset"),
    "a container with few cores": ({"cpu_max": "150000 100000", "cores": 64}, "TF_NUM_INTRAOP_THREADS=2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_environment_is_told_with_its_cure(name, monkeypatch, tmp_path):
    broken, words = BROKEN[name]
    for package, version in broken.get("packages", {}).items():
        install(tmp_path, package, version)
    # Of two packages of one name, the later in this list of folders counts, as where they were overwritten.
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for variable, value in broken.get("environ", {}).items():
        monkeypatch.setenv(variable, value)
    if "missing" in broken:
        monkeypatch.setattr(doctor, "find_spec", lambda module: None)
    for function in ("driver", "cpu_max"):
        monkeypatch.setattr(doctor, f"_{function}", partial(broken.get, function))
    if "cores" in broken:
        monkeypatch.setattr(doctor, "usable_cores", lambda: broken["cores"])
    usage = shutil.disk_usage(tmp_path)
    free = broken.get("free", 10**12)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    monkeypatch.setattr(doctor, "_installed", without(doctor._installed, "nvidia-cudnn-cu12"))
    warnings = doctor.examine().warnings
    assert [warning for warning in warnings if re.search(words, warning)], warnings


def without(installed, package):
    return lambda: {name: version for name, version in installed().items() if name != package}


@pytest.mark.parametrize(("version", "count"), [((3, 10), 1), ((3, 11), 0), ((3, 13), 0), ((3, 14), 1)])
def test_python_outside_the_supported_range_is_told(version, count):
    assert len(python_warnings(version)) == count


def test_what_is_in_order_is_not_told(tmp_path):
    installed = {
        "tensorflow": "2.21.0",
        "tensorflow-text": "2.21.1",
        "keras": "3.15.1",
        "keras-hub": "0.32.0",
    }
    assert package_warnings(installed, lambda _: False) == []
    config = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}'
    environ = {"TF_CONFIG": config, "TF_NUM_INTRAOP_THREADS": "4", "TFAPP_DATA": str(tmp_path)}
    assert environment_warnings(environ, cores=4) == []
    assert quota_warnings("max 100000", cores=64, environ={}) == []
    assert quota_warnings("400000 100000", cores=4, environ={}) == []


def test_a_variable_that_spoils_training_is_told(monkeypatch, tmp_path):
    environ = {"TF_ENABLE_ONEDNN_OPTS": "0", "TFAPP_DATA": str(tmp_path / "none")}
    assert len(environment_warnings(environ, cores=2)) == 2


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
