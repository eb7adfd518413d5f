"""Releases: exported files that were measured before anybody can use them.

Looking at files, and removing old versions, needs no TensorFlow: what does is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfapp.release.benchmark import bench as bench
    from tfapp.release.comparison import compare_releases as compare_releases
    from tfapp.release.comparison_report import ReleaseComparison as ReleaseComparison
    from tfapp.release.exporting import export as export
    from tfapp.release.gate import Budget as Budget
    from tfapp.release.pruning import PruneReport as PruneReport
    from tfapp.release.pruning import prune as prune
    from tfapp.release.release import Release as Release
    from tfapp.release.serving_bundle import write_serving_bundle as write_serving_bundle
    from tfapp.release.verifying import VerifyReport as VerifyReport
    from tfapp.release.verifying import verify as verify

_MODULES = {
    "Budget": "gate",
    "PruneReport": "pruning",
    "Release": "release",
    "ReleaseComparison": "comparison_report",
    "VerifyReport": "verifying",
    "bench": "benchmark",
    "compare_releases": "comparison",
    "export": "exporting",
    "prune": "pruning",
    "verify": "verifying",
    "write_serving_bundle": "serving_bundle",
}

__all__ = [*sorted(_MODULES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Imports a public name from its module on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tfapp.release' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tfapp.release.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
