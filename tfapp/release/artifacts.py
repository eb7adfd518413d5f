"""Which artifacts there are, and how they are written."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfapp.disk import disk_full
from tfapp.errors import ConfigError, DataError, OutputError, TfappError, nearest, writing_problem
from tfapp.exporters import EXPORTERS, INTEGER_REPORT, TFLITE_VARIANTS, onnx_obstacle
from tfapp.release.layout import SAVED_MODEL, artifact_path
from tfapp.release.probe import RawFeatures
from tfapp.release.publish import SPACE

_logger = logging.getLogger("tfapp")

# For each variant its size as a share of the float32 weights, for the check of free space.
VARIANTS: dict[str, float] = {
    "saved_model": 1.0,
    "keras": 1.0,
    "float32": 1.0,
    "float16": 0.5,
    "dynamic": 0.3,
    "int8": 0.3,
    "text": 0.3,
    "onnx": 1.0,
}
_SAVED_MODEL_PARTS = (SAVED_MODEL, "fingerprint.pb", "variables", "assets")
_SCRATCH_SHARE = 2.0
_SPARE_BYTES = 32_000_000
# Of one class and row: a probability and a logit, 8 bytes each at most.
_ANSWER_BYTES = 16
# What base64 makes of bytes.
_IN_LETTERS = 4 / 3


def choose_variants(
    model: Any, variants: Sequence[str] | None, *, calibrated: bool = True
) -> tuple[str, ...]:
    """Decides which artifacts are written.

    Args:
        model: A classifier with ``cannot_export``.
        variants: Names of variants; None for all that the model can be exported as.
        calibrated: Whether there are training rows to calibrate integer artifacts by.

    Returns:
        The names, each once.

    Raises:
        ConfigError: When one is unknown or cannot be made of the model or with the packages installed here,
            or there is none.
    """
    offered = model.preprocessor.variants
    cannot = dict(model.cannot_export)
    if "onnx" in offered and (obstacle := onnx_obstacle()):
        cannot["onnx"] = obstacle
    if not calibrated and "int8" in offered:
        cannot["int8"] = "it is calibrated on training rows, which come with data=..."
    if variants is None:
        for name, reason in cannot.items():
            _logger.info("export: %s is left out: %s", name, reason)
        return tuple(name for name in offered if name not in cannot)
    for name in variants:
        if name not in offered:
            what = "is not made of such a model" if name in VARIANTS else "is unknown"
            raise ConfigError(f"variant {name!r} {what}; {nearest(name, offered)}")
        if name in cannot:
            raise ConfigError(
                f"variant {name!r} cannot be made of this model: {cannot[name]}. Or leave it out; without "
                "`variants`, all that can be made are exported."
            )
    if not variants:
        raise ConfigError(f"variants is empty; {nearest('', offered)}")
    return tuple(dict.fromkeys(variants))


def check_space(
    directory: Path, model: Any, variants: Sequence[str], features: RawFeatures, *, golden: Sequence[bytes]
) -> None:
    """Refuses to start on a disk that cannot hold the release and what measuring it takes meanwhile.

    A text that is split into windows counts as one of them: how many it has shows when it is tokenized.

    Args:
        directory: An existing folder on that disk.
        model: The model whose weights are written.
        variants: The variants to be written.
        features: What every artifact is asked.
        golden: Those of them that are shipped with the release.

    Raises:
        OutputError: When there is too little space.
    """
    weights = 4 * int(model.count_params())
    needed = int(weights * (sum(VARIANTS[name] for name in variants) + _SCRATCH_SHARE)) + _SPARE_BYTES
    # Features and tensors are handed to other processes as files, and so are answers handed back.
    answers = _ANSWER_BYTES * model.num_classes * len(variants)
    needed += features.total_bytes + len(features) * (_tensor_bytes(model) + answers)
    needed += int(_IN_LETTERS * sum(map(len, golden)))
    if shutil.disk_usage(directory).free < needed:
        raise disk_full(directory, needed=needed, cure=SPACE)


def artifact_bytes(directory: Path, variant: str) -> int:
    """Measures the size of an artifact.

    Args:
        directory: The version folder.
        variant: The artifact's variant.

    Returns:
        Bytes on disk; 0 when it is not there.
    """
    files = [file for part in _parts(directory, variant) for file in (part, *part.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def write_artifact(
    model: Any,
    variant: str,
    directory: Path,
    scratch: Path,
    calibration: Sequence[Any] = (),
    *,
    min_agreement: float = 0.0,
    name: str = "",
    licence: str = "",
) -> str | None:
    """Writes one artifact.

    Args:
        model: The model.
        variant: What to write.
        directory: The version folder in the making.
        scratch: A folder for intermediate files.
        calibration: Features by which integer artifacts are calibrated.
        min_agreement: Share of them that should keep their class in integers, from 0 to 1.
        name: What files that say so call the model.
        licence: The terms of its parts.

    Returns:
        Why it could not be made from this model, or None.

    Raises:
        OutputError: When the disk is full or cannot be written.
        DataError: When an image to calibrate by cannot be read or decoded any more, with its name.
    """
    started = time.monotonic()
    try:
        if variant in TFLITE_VARIANTS:
            EXPORTERS["tflite"](
                model,
                directory,
                variant=variant,
                scratch=scratch,
                calibration=calibration,
                min_agreement=min_agreement,
                name=name,
                licence=licence,
            )
        else:
            EXPORTERS[variant](model, directory)
    except (ConfigError, DataError, OutputError):
        raise
    except Exception as error:
        # Converters raise errors of many kinds; which one it was stands in the reason.
        if writing_problem(error):
            raise
        remove_artifact(directory, variant)
        _logger.debug("%s could not be made", variant, exc_info=True)
        kind = "" if isinstance(error, TfappError) else f"{type(error).__name__}: "
        return f"cannot be made from this model: {kind}{' '.join(str(error).split())[:500]}"
    size = artifact_bytes(directory, variant) / 1e6
    _logger.info("export: %s, %.1f MB, in %.1f s", variant, size, time.monotonic() - started)
    return None


def _tensor_bytes(model: Any) -> int:
    """Bytes of a row of the model's input tensors, of fixed length."""
    types = model.preprocessor.tensor_dtypes
    total = 0
    for name, tensor in model.input.items():
        sides = (side or model.preprocessor.max_length for side in tensor.shape[1:])
        total += math.prod(sides) * np.dtype(types.get(name, tensor.dtype)).itemsize
    return total


def _parts(directory: Path, variant: str) -> list[Path]:
    names = _SAVED_MODEL_PARTS if variant == "saved_model" else (artifact_path(variant),)
    return [directory / name for name in names]


def remove_artifact(directory: Path, variant: str) -> None:
    """Removes what was written of an artifact.

    Args:
        directory: The version folder in the making.
        variant: The artifact's variant.
    """
    report = [directory / "edge" / INTEGER_REPORT] if variant == "int8" else []
    for part in _parts(directory, variant) + report:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
            # No manifest lists an empty folder, so a release that holds one is refused.
            with contextlib.suppress(OSError):
                part.parent.rmdir()
