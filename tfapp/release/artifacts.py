"""Which artifacts there are, where they lie, and how they are written."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfapp.errors import ConfigError, OutputError, TfappError, nearest
from tfapp.exporters import EXPORTERS, TFLITE_VARIANTS
from tfapp.release.publish import disk_full

_logger = logging.getLogger("tfapp")

# For each variant its size as a share of the float32 weights, for the check of free space.
VARIANTS: dict[str, float] = {
    "saved_model": 1.0,
    "keras": 1.0,
    "float32": 1.0,
    "float16": 0.5,
    "dynamic": 0.3,
    "text": 0.3,
}
_SCRATCH_SHARE = 2.0
_SPARE_BYTES = 32_000_000


def check_variants(variants: Sequence[str]) -> tuple[str, ...]:
    """Refuses variants that do not exist.

    Args:
        variants: Names of variants.

    Returns:
        The same, each once.

    Raises:
        ConfigError: When one is unknown, or there is none.
    """
    for variant in variants:
        if variant not in VARIANTS:
            raise ConfigError(f"variant {variant!r} is unknown; {nearest(variant, VARIANTS)}")
    if not variants:
        raise ConfigError(f"variants is empty; {nearest('', VARIANTS)}")
    return tuple(dict.fromkeys(variants))


def check_space(directory: Path, model: Any, variants: Sequence[str]) -> None:
    """Refuses to start on a disk that cannot hold the release.

    Args:
        directory: An existing folder on that disk.
        model: The model whose weights are written.
        variants: The variants to be written.

    Raises:
        OutputError: When there is too little space.
    """
    weights = 4 * int(model.count_params())
    needed = int(weights * (sum(VARIANTS[name] for name in variants) + _SCRATCH_SHARE)) + _SPARE_BYTES
    if shutil.disk_usage(directory).free < needed:
        raise disk_full(directory, needed)


def artifact_path(variant: str) -> str:
    """Tells where a variant lies.

    Args:
        variant: Its name.

    Returns:
        The path relative to the version folder; ``"."`` for the SavedModel.
    """
    return {"saved_model": ".", "keras": "keras/model.keras"}.get(variant, f"edge/model-{variant}.tflite")


def artifact_bytes(directory: Path, variant: str) -> int:
    """Measures the size of an artifact.

    Args:
        directory: The version folder.
        variant: The artifact's variant.

    Returns:
        Bytes on disk; 0 when it is not there.
    """
    if variant != "saved_model":
        path = directory / artifact_path(variant)
        return path.stat().st_size if path.is_file() else 0
    paths = [directory / "saved_model.pb", directory / "fingerprint.pb"]
    paths += [path for name in ("variables", "assets") for path in (directory / name).rglob("*")]
    return sum(path.stat().st_size for path in paths if path.is_file())


def write_artifact(model: Any, variant: str, directory: Path, scratch: Path) -> str | None:
    """Writes one artifact.

    Args:
        model: The model.
        variant: What to write.
        directory: The version folder in the making.
        scratch: A folder for intermediate files.

    Returns:
        Why it could not be made from this model, or None.

    Raises:
        OutputError: When the disk is full or cannot be written.
    """
    started = time.monotonic()
    try:
        if variant in TFLITE_VARIANTS:
            EXPORTERS["tflite"](model, directory, variant=variant, scratch=scratch)
        else:
            EXPORTERS[variant](model, directory)
    except (OSError, ConfigError, OutputError):
        raise
    except Exception as error:
        # Converters raise errors of many kinds; which one it was stands in the reason.
        if "No space left on device" in str(error):
            raise disk_full(directory) from error
        _remove(directory / artifact_path(variant))
        _logger.debug("%s could not be made", variant, exc_info=True)
        kind = "" if isinstance(error, TfappError) else f"{type(error).__name__}: "
        return f"cannot be made from this model: {kind}{' '.join(str(error).split())[:500]}"
    size = artifact_bytes(directory, variant) / 1e6
    _logger.info("export: %s, %.1f MB, in %.1f s", variant, size, time.monotonic() - started)
    return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
