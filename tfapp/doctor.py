"""Tells what is installed, what the machine can do, and what is wrong, in plain words."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import tfapp
from tfapp.assets import ASSETS, cache_dir, is_cached
from tfapp.doctor_warnings import (
    device_warnings,
    environment_warnings,
    package_warnings,
    python_warnings,
    quota_warnings,
    storage_warnings,
)
from tfapp.machine import processor_name, usable_cores

_LIBRARIES = (
    "tensorflow",
    "tensorflow-text",
    "keras",
    "keras-hub",
    "tensorboard",
    "ai-edge-litert",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "pydantic",
)
_EXTRAS = {
    "gpu": ("training on NVIDIA GPUs", ("nvidia-cudnn-cu12", "nvidia-ml-py")),
    "client": ("tfapp.serving.Client", ("httpx2", "grpcio")),
    "serve": ("tfapp serve", ("tensorflow-serving-api", "grpcio", "grpcio-health-checking", "uvicorn")),
    "onnx": ("ONNX files among the artifacts", ("tf2onnx", "onnx", "onnxruntime")),
    "zh": ("edits of Chinese texts", ("jieba", "pypinyin", "opencc-py")),
    "mediapipe": ("tests of .tflite files under MediaPipe Tasks", ("mediapipe",)),
    "dev": ("tests and checks: scripts/test, scripts/check", ("pytest", "ruff", "mypy", "import-linter")),
}
_CPU_FLAGS = {
    "AVX2": ("avx2", "fast float32; without it TensorFlow is slow"),
    "AVX-512": ("avx512f", "faster float32"),
    "AVX-512 VNNI": ("avx512_vnni", "fast int8 inference"),
    "AVX-512 BF16": ("avx512_bf16", "bfloat16 arithmetic: faster training in mixed_bfloat16"),
    "AMX BF16": ("amx_bf16", "bfloat16 matrix units: fastest training in mixed_bfloat16"),
}


@dataclass
class Section:
    """A titled list of findings.

    Attributes:
        title: What the findings are about.
        rows: Name and value of each.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Findings:
    """What `examine` found.

    Attributes:
        sections: The state of things, section by section.
        warnings: What is wrong, each with its cure.
    """

    sections: list[Section] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine() -> Findings:
    """Examines the installation and the machine.

    Returns:
        What was found.
    """
    cores = usable_cores()
    findings = Findings(
        warnings=[
            *python_warnings(sys.version_info[:2]),
            *package_warnings(_installed(), lambda name: find_spec(name) is not None),
            *environment_warnings(os.environ, cores=cores),
            *quota_warnings(_cpu_max(), cores=cores, environ=os.environ),
            *storage_warnings(_free()),
        ]
    )
    findings.sections.append(_machine())
    findings.sections.append(_libraries())
    findings.sections.append(_devices(findings.warnings))
    findings.sections.append(_extras())
    findings.sections.append(_storage())
    return findings


def cpu_features(flags: Collection[str]) -> list[tuple[str, str]]:
    """Words the features of a processor that matter here.

    Args:
        flags: The processor's flags as Linux names them.

    Returns:
        Name of each feature, and whether it is there and what it is good for; nothing without flags.
    """
    if not flags:
        return []
    return [(name, f"{'yes' if flag in flags else 'no'} ({use})") for name, (flag, use) in _CPU_FLAGS.items()]


def _machine() -> Section:
    rows = [
        ("tfapp", tfapp.__version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", platform.platform()),
        ("processor", f"{processor_name()}, {usable_cores()} usable cores"),
    ]
    return Section("This machine", rows)


def _libraries() -> Section:
    installed = _installed()
    return Section("Libraries", [(name, installed.get(name, "not installed")) for name in _LIBRARIES])


def _devices(warnings: list[str]) -> Section:
    """Asks TensorFlow and Keras what they compute on; a broken installation becomes a warning."""
    try:
        import keras
        import tensorflow as tf

        from tfapp.training.precision import choose_precision, cpu_flags

        devices = [
            f"{device.device_type}:{number}" for number, device in enumerate(tf.config.list_logical_devices())
        ]
        rows = [("devices", ", ".join(devices)), ("Keras backend", keras.backend.backend())]
        if keras.backend.backend() != "tensorflow":
            warnings.append(
                f"Keras computes with {keras.backend.backend()}, not TensorFlow: unset KERAS_BACKEND, or set "
                '"backend": "tensorflow" in ~/.keras/keras.json.'
            )
        kinds = [device.device_type for device in tf.config.list_logical_devices()]
        warnings += device_warnings(kinds, _installed(), os.environ, driver=_driver(), tpus=_find_tpu)
        rows += cpu_features(cpu_flags())
        rows.append(("precision = 'auto'", f"trains in {choose_precision('auto')} here"))
    except Exception as error:
        warnings.append(
            f"TensorFlow or Keras cannot be imported ({type(error).__name__}: {error}): make a fresh "
            "environment with `pip install -c constraints.txt -e .`."
        )
        rows = [("devices", "unknown")]
    return Section("Computing", rows)


def _extras() -> Section:
    installed = _installed()
    rows = []
    for name, (use, packages) in _EXTRAS.items():
        missing = [package for package in packages if package not in installed]
        state = f"not installed: pip install -e '.[{name}]' in the clone" if missing else "installed"
        rows.append((name, f"{use}; {state}"))
    return Section("Extras", rows)


def _storage() -> Section:
    folder = cache_dir()
    data = os.environ.get("TFAPP_DATA")
    return Section(
        "Files",
        [
            ("cache", f"{folder}, {_size(folder) / 1e6:.1f} MB ($TFAPP_CACHE chooses another folder)"),
            *(
                (f"  {asset.name}", "cached" if is_cached(asset) else "not cached")
                for asset in ASSETS.values()
            ),
            ("$TFAPP_DATA", data or "not set; workflows and tests with larger data sets need it"),
        ],
    )


def _size(folder: Path) -> int:
    """Adds up the files below a folder, which another process may be filling or clearing meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(place, name)).st_size
    return size


def _installed() -> dict[str, str]:
    return {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in metadata.distributions()
        if found.metadata["Name"]
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, where it is loaded."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None


def _free() -> dict[Path, int]:
    """Free bytes where things are cached and written."""
    folders = {cache_dir(), Path.cwd()}
    existing = {next(path for path in (folder, *folder.parents) if path.exists()) for folder in folders}
    return {folder: shutil.disk_usage(folder).free for folder in sorted(existing)}


def _cpu_max() -> str | None:
    try:
        return Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def _find_tpu() -> None:
    import tensorflow as tf

    tf.distribute.cluster_resolver.TPUClusterResolver(os.environ["TPU_NAME"]).cluster_spec()
