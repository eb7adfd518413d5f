"""What is wrong with an installation or a machine, each finding with its cure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

_PYTHONS = ((3, 11), (3, 13))
_ONE_FOLDER = ("tensorflow-cpu", "tensorflow-tpu", "tf-nightly", "intel-tensorflow", "tensorflow-macos")
"""Packages that install the folder ``tensorflow`` too."""
_OLDEST_DRIVER = (525, 60, 13)
"""For CUDA 12: NVIDIA, CUDA Compatibility, table of minor version compatibility."""
_LEAST_FREE_BYTES = 5_000_000_000
_TRUE = ("1", "true")


def python_warnings(version: tuple[int, ...]) -> list[str]:
    """Looks at the version of Python.

    Args:
        version: Major and minor number.

    Returns:
        Sentences.
    """
    if _PYTHONS[0] <= version <= _PYTHONS[1]:
        return []
    return [
        f"Python {version[0]}.{version[1]} is outside 3.11 to 3.13, for which TensorFlow has wheels: make an "
        "environment with one of these."
    ]


def package_warnings(installed: Mapping[str, str], findable: Callable[[str], bool]) -> list[str]:
    """Looks at what is installed together.

    Args:
        installed: Versions by the names of packages, lower case with ``-``.
        findable: Tells whether a module can be imported.

    Returns:
        Sentences.
    """
    warnings = []
    others = [name for name in _ONE_FOLDER if name in installed]
    if "tensorflow" in installed and others:
        names = " and ".join(others)
        verb = "is" if len(others) == 1 else "are"
        warnings.append(
            f"{names} {verb} installed beside tensorflow, in the same folder, and they overwrite each other: "
            f"pip uninstall {' '.join(others)} tensorflow, then pip install tensorflow; what runs on TPUs "
            "needs an environment of its own."
        )
    text = installed.get("tensorflow-text")
    tensorflow = next((installed[name] for name in ("tensorflow", *_ONE_FOLDER) if name in installed), None)
    if text and tensorflow and text.split(".")[:2] != tensorflow.split(".")[:2]:
        warnings.append(
            f"tensorflow-text {text} does not fit TensorFlow {tensorflow}: install both in the same version."
        )
    keras = installed.get("keras")
    if keras and keras.split(".")[0] == "2":
        warnings.append(
            f"Keras {keras} is installed, and tfapp needs Keras 3: pip install 'keras>=3.13'. Code that "
            "needs Keras 2 finds it as tf_keras."
        )
    hub, nlp = installed.get("keras-hub"), installed.get("keras-nlp")
    if hub and nlp and hub != nlp:
        warnings.append(
            f"keras-nlp {nlp} beside keras-hub {hub}: it is the same library under its old name; pip "
            "uninstall keras-nlp, or install both in one version."
        )
    if "tensorflow-hub" in installed and not findable("pkg_resources"):
        warnings.append(
            "tensorflow-hub imports pkg_resources, which setuptools 82 and later no longer have: pip install "
            "'setuptools<82', or pip uninstall tensorflow-hub, which tfapp does not need."
        )
    return warnings


def environment_warnings(environ: Mapping[str, str], *, cores: int) -> list[str]:
    """Looks at environment variables.

    Args:
        environ: They.
        cores: How many cores this process may use.

    Returns:
        Sentences.
    """
    warnings = []
    if environ.get("TF_USE_LEGACY_KERAS", "0").lower() in _TRUE:
        warnings.append("TF_USE_LEGACY_KERAS is set: tfapp needs Keras 3; unset it.")
    if environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        warnings.append("TF_ENABLE_ONEDNN_OPTS=0 makes training on a CPU about 1.6 times slower; unset it.")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        value = environ.get(name, "")
        if value.isdecimal() and int(value) > cores:
            warnings.append(
                f"{name}={value}, and this process may use {cores} cores: threads wait in turn; unset it."
            )
    if environ.get("TF_NUM_INTRAOP_THREADS") == "1" and cores > 1:
        warnings.append(
            f"TF_NUM_INTRAOP_THREADS=1 leaves {cores - 1} of {cores} cores idle in training; unset it."
        )
    data = environ.get("TFAPP_DATA")
    if data and not Path(data).is_dir():
        warnings.append(f"TFAPP_DATA={data} is not a folder.")
    if "TF_CONFIG" in environ:
        warnings += _cluster_warnings(environ["TF_CONFIG"])
    return warnings


def _cluster_warnings(text: str) -> list[str]:
    cure = (
        'it is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, with the '
        "index of each machine; unset it to train on this machine alone."
    )
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        others = config["cluster"].get("chief", [])
        known = {"worker": workers, "chief": others}[task["type"]]
        if not 0 <= int(task["index"]) < len(known):
            return [
                f"TF_CONFIG says that this is {task['type']} {task['index']} of {len(known)}, which are "
                f"numbered from 0: {cure}"
            ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"TF_CONFIG cannot be read: {cure}"]
    return []


def device_warnings(
    kinds: list[str],
    installed: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    driver: str | None,
    tpus: Callable[[], None],
) -> list[str]:
    """Looks at accelerators that are there and not used.

    Args:
        kinds: The kinds of devices that TensorFlow lists, such as ``"CPU"`` and ``"GPU"``.
        installed: Versions by the names of packages.
        environ: Environment variables.
        driver: Version of NVIDIA's driver, or None where there is none.
        tpus: Looks for the TPU that ``TPU_NAME`` names, and raises what is wrong.

    Returns:
        Sentences.
    """
    warnings = []
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    if driver is not None and "GPU" not in kinds:
        numbers = tuple(map(int, re.findall(r"\d+", driver)))
        if hidden is not None and hidden.strip() in ("", "-1"):
            warnings.append(
                f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPU from TensorFlow; unset it to use it."
            )
        elif numbers < _OLDEST_DRIVER:
            oldest = ".".join(map(str, _OLDEST_DRIVER))
            warnings.append(
                f"NVIDIA's driver {driver} is older than {oldest}, which CUDA 12 needs, so TensorFlow does "
                "not use the GPU: install a newer driver."
            )
        elif not any(name.startswith("nvidia-cudnn") for name in installed):
            warnings.append(
                f"there is a GPU (driver {driver}), and TensorFlow does not find CUDA's libraries: pip "
                "install 'tfapp[gpu]', which takes tensorflow[and-cuda]."
            )
        else:
            warnings.append(
                f"there is a GPU (driver {driver}) and CUDA's libraries are installed, and TensorFlow does "
                "not use it: pip check tells whether their versions fit; python -c 'import tensorflow' tells "
                "which one it cannot load."
            )
    if "TPU_NAME" in environ:
        if "tensorflow-tpu" not in installed:
            warnings.append(
                f"TPU_NAME={environ['TPU_NAME']}, and this TensorFlow cannot drive TPUs: make an environment "
                "with tensorflow-tpu 2.20 and the tensorflow-text of that version, without tensorflow."
            )
        else:
            try:
                tpus()
            except Exception as error:
                said = " ".join(str(error).split())[:200]
                warnings.append(
                    f"the TPU {environ['TPU_NAME']!r} of TPU_NAME cannot be reached ({said}): see that it is "
                    "READY, in the zone and project of this machine, and that its name is right; on a TPU VM "
                    "it is 'local'."
                )
    return warnings


def storage_warnings(free: Mapping[Path, int]) -> list[str]:
    """Looks at the room on disks.

    Args:
        free: Free bytes by folder.

    Returns:
        Sentences.
    """
    return [
        f"{folder} has {count / 1e9:.1f} GB of free space: packaged weights, cached features, checkpoints "
        "and releases take several; free some, or choose another folder with TFAPP_CACHE and --output."
        for folder, count in free.items()
        if count < _LEAST_FREE_BYTES
    ]


def quota_warnings(cpu_max: str | None, *, cores: int, environ: Mapping[str, str]) -> list[str]:
    """Looks whether a container may use fewer cores than it sees.

    Args:
        cpu_max: The text of cgroup's ``cpu.max``, or None.
        cores: How many cores this process sees.
        environ: Environment variables.

    Returns:
        Sentences.
    """
    words = (cpu_max or "").split()
    if len(words) != 2 or not words[0].isdecimal():
        return []
    allowed = int(words[0]) / int(words[1])
    if allowed > cores / 2 or "TF_NUM_INTRAOP_THREADS" in environ:
        return []
    return [
        f"this container may use {allowed:g} cores and sees {cores}, so that TensorFlow starts too many "
        f"threads: set TF_NUM_INTRAOP_THREADS={max(1, round(allowed))}, or run it with --cpuset-cpus."
    ]
