"""Releases: exported files that were measured before anybody can use them.

Verifying needs no TensorFlow in this process, so `export`, which does, is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfapp.release.gate import Budget
from tfapp.release.verifying import VerifyReport, verify

if TYPE_CHECKING:
    from tfapp.release.benchmark import bench as bench
    from tfapp.release.exporting import Release as Release
    from tfapp.release.exporting import export as export

_LAZY = {"Release": "exporting", "bench": "benchmark", "export": "exporting"}

__all__ = ["Budget", "Release", "VerifyReport", "bench", "export", "verify"]


def __getattr__(name: str) -> Any:
    """Imports what is in `_LAZY` on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tfapp.release' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfapp.release.{_LAZY[name]}"), name)
