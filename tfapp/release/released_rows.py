"""Labelled rows to measure a release on, read as its workflow read its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfapp.data.labelled_rows import load_labelled_rows


def checked_rows(manifest: Mapping[str, Any]) -> str | None:
    """Returns the checksum of the test rows that a release was checked with; None without any."""
    found: str | None = manifest["data"].get("test", {}).get("sha256")
    return found


def load_rows_for(
    manifest: Mapping[str, Any],
    source: str | Path,
    classes: Sequence[str],
    *,
    feature: str,
    feature_column: str | None = None,
    label_column: str | None = None,
) -> tuple[Any, str]:
    """Reads labelled rows.

    Args:
        manifest: What the release's ``manifest.json`` says.
        source: What `load_labelled_rows` takes.
        classes: Names of the model's classes in their order.
        feature: What is classified: ``"text"`` or ``"image_bytes"``.
        feature_column: The column of texts or paths; that of the release's workflow when None.
        label_column: The column of labels; that of the release's workflow when None.

    Returns:
        The rows as a split, and words for what they are.

    Raises:
        DataError: When they cannot be read, or are of other classes.
    """
    kind = "text" if feature == "text" else "image"
    section = manifest["config"].get("data")
    columns: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
    options = {name: columns[name] for name in ("text", "image", "label", "encoding") if name in columns}
    if feature_column is not None:
        options["text" if kind == "text" else "image"] = feature_column
    if label_column is not None:
        options["label"] = label_column
    split = load_labelled_rows(source, classes, kind=kind, **options)
    if split.sha256 == checked_rows(manifest):
        return split, f"the test rows that the release was checked with, sha256 {split.sha256[:16]}"
    return split, f"{len(split):,} rows of {source}, which are not those that the release was checked with"
