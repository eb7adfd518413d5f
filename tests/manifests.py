"""A manifest as a release has it, for tests that change parts of it."""

from __future__ import annotations

from typing import Any

BUDGET = {
    "min_agreement": 0.99,
    "max_accuracy_drop": 0.01,
    "max_abs_difference": None,
    "max_exact_difference": 0.01,
    "max_scale_error": 0.1,
    "max_golden_difference": 0.5,
}


def make_artifact(variant: str, *, path: str, **changes: Any) -> dict[str, Any]:
    """Makes the row of a released artifact."""
    return {
        "variant": variant,
        "path": path,
        "bytes": 123,
        "examples": 430,
        "agreement": 1.0,
        "max_abs_difference": 1e-6,
        "accuracy": 0.98,
        "accuracy_drop": 0.0,
        "scale": 1.0,
        "scale_rows": 430,
        "robust_accuracy": None,
        "latency_ms": None,
        "verdict": "released",
        "reasons": [],
        **changes,
    }


def make_manifest(
    *, files: dict[str, str], artifacts: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """Makes the manifest of a release."""
    return {
        "schema_version": 1,
        "name": "reviews",
        "version": 1,
        "tfapp_version": "0.1.0",
        "libraries": {},
        "seed": None,
        "config": {},
        "data": {},
        "metrics": {},
        "release": {"verdict": "released", "reasons": [], "budget": BUDGET},
        "files": files,
        "artifacts": artifacts,
        "left_out": [],
        **changes,
    }
