"""Tells what is installed, what the machine can do, and what is wrong, in plain words."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import tfapp
from tfapp.assets import ASSETS, cache_dir, is_cached
from tfapp.machine import processor_name, usable_cores

_PYTHONS = ((3, 11), (3, 13))
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
    "gpu": ("training on NVIDIA GPUs", ("nvidia-cudnn-cu12",)),
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
    findings = Findings(warnings=[*_python_warnings(sys.version_info[:2]), *_package_warnings(_installed())])
    findings.warnings += _environment_warnings()
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


def _python_warnings(version: tuple[int, ...]) -> list[str]:
    if _PYTHONS[0] <= version <= _PYTHONS[1]:
        return []
    return [
        f"Python {version[0]}.{version[1]} is outside 3.11 to 3.13, for which TensorFlow has wheels: make an "
        "environment with one of these."
    ]


def _package_warnings(installed: dict[str, str]) -> list[str]:
    warnings = []
    if "tensorflow" in installed and "tensorflow-cpu" in installed:
        warnings.append(
            "tensorflow and tensorflow-cpu are both installed, in the same folder, and overwrite each other: "
            "pip uninstall tensorflow-cpu tensorflow, then pip install tensorflow."
        )
    text, tensorflow = installed.get("tensorflow-text"), installed.get("tensorflow")
    if text and tensorflow and text.split(".")[:2] != tensorflow.split(".")[:2]:
        warnings.append(
            f"tensorflow-text {text} does not fit TensorFlow {tensorflow}: install both in the same version."
        )
    return warnings


def _environment_warnings() -> list[str]:
    warnings = []
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        warnings.append("TF_USE_LEGACY_KERAS is set: tfapp needs Keras 3; unset it.")
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        warnings.append("TF_ENABLE_ONEDNN_OPTS=0 makes training on a CPU about 1.6 times slower; unset it.")
    data = os.environ.get("TFAPP_DATA")
    if data and not Path(data).is_dir():
        warnings.append(f"TFAPP_DATA={data} is not a folder.")
    return warnings
