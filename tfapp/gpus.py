"""NVIDIA GPUs as the driver's library NVML tells them, where it and the package of the extra ``gpu`` are."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GpuState:
    """A GPU at a moment, with what all processes do on it.

    Attributes:
        name: Its name.
        memory_used: Bytes.
        memory_total: Bytes.
        utilization: Share of the last moments in which it computed something, 0 to 1.
    """

    name: str
    memory_used: int
    memory_total: int
    utilization: float


class Gpus:
    """The machine's GPUs, all of them, whichever this process uses.

    Args:
        library: What speaks NVML, as ``pynvml`` does; None looks for it.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._handles: list[Any] = []
        try:
            self._library = library or importlib.import_module("pynvml")
            self._library.nvmlInit()
            count = self._library.nvmlDeviceGetCount()
            self._handles = [self._library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except Exception:  # no package, no driver, no permission: a run goes on without
            self._handles = []

    def read(self) -> list[GpuState]:
        """The state of each GPU; empty where there is none, or none that tells.

        Returns:
            One state a GPU, in NVML's order.
        """
        try:
            return [self._state(handle) for handle in self._handles]
        except Exception:  # a GPU that fell off the bus, a driver that was unloaded
            self._handles = []
            return []

    def _state(self, handle: Any) -> GpuState:
        memory = self._library.nvmlDeviceGetMemoryInfo(handle)
        name = self._library.nvmlDeviceGetName(handle)
        return GpuState(
            name.decode() if isinstance(name, bytes) else str(name),
            memory_used=int(memory.used),
            memory_total=int(memory.total),
            utilization=self._library.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        )
