"""Which precision to compute in, and computing in it without rebuilding the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.models.encoders import SCALING_LAYERS

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
_BFLOAT16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")
_AMPERE = (8, 0)


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this processor as Linux names them; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flags.partition(":")[2].split())


def choose_precision(requested: str = "auto") -> str:
    """Chooses the precision to train in.

    Args:
        requested: ``"float32"``, ``"mixed_bfloat16"``, or ``"auto"`` for bfloat16 where the device multiplies
            it faster: a TPU, a GPU of compute capability 8.0 or more, a CPU with AMX or AVX512-BF16.

    Returns:
        ``"float32"`` or ``"mixed_bfloat16"``.

    Raises:
        ConfigError: When ``requested`` is none of these.
    """
    if requested not in PRECISIONS:
        raise ConfigError(f"unknown precision {requested!r}; {nearest(requested, PRECISIONS)}")
    if requested != "auto":
        return requested
    if tf.config.list_logical_devices("TPU"):
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        able = all(
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= _AMPERE
            for gpu in gpus
        )
        return "mixed_bfloat16" if able else "float32"
    return "mixed_bfloat16" if cpu_flags() & set(_BFLOAT16_CPU_FLAGS) else "float32"


@contextmanager
def computing_in(precision: str, backbone: keras.Model) -> Iterator[None]:
    """Lets the layers of a backbone compute in a precision; afterwards they are as before.

    Variables stay float32 throughout, and neither the head nor what scales raw pixels is touched. So a model
    trained in bfloat16 is exported from float32 layers.

    Args:
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        backbone: A built model.

    Yields:
        Nothing; the precision holds within the block.
    """
    layers = [
        layer
        for layer in backbone._flatten_layers()
        if layer.dtype_policy.name != precision and not isinstance(layer, SCALING_LAYERS)
    ]
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = precision
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy
