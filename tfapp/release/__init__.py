"""Releases: exported files that were measured before anybody can use them.

Verifying needs no TensorFlow in this process, so `export`, which does, is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfapp.release.gate import Budget
from tfapp.release.serving_bundle import write_serving_bundle
from tfapp.release.verifying import VerifyReport, verify

if TYPE_CHECKING:
    from tfapp.release.exporting import Release as Release
    from tfapp.release.exporting import export as export

__all__ = ["Budget", "Release", "VerifyReport", "export", "verify", "write_serving_bundle"]


def __getattr__(name: str) -> Any:
    """Imports `export` and `Release` on first use."""
    if name not in ("export", "Release"):
        raise AttributeError(f"module 'tfapp.release' has no attribute {name!r}")
    from tfapp.release import exporting

    return getattr(exporting, name)
