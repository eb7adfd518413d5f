"""The labelled rows at hand to measure a release on: those of its run, or those that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfapp.data.labelled_rows import load_labelled_rows


def run_rows(directory: Path, manifest: Mapping[str, Any]) -> Path | None:
    """Finds the rows that the run of a release left beside ``saved_models``.

    Args:
        directory: The version folder.
        manifest: Its manifest.

    Returns:
        The folder where they should be, whether they are or not; None where there is no such place.
    """
    above = directory.parents
    return above[2] / "runs" / manifest["name"] / "prepare" / "data" if len(above) > 2 else None


def are_rows(folder: Path | None) -> bool:
    """Tells whether a folder holds rows that a run left.

    Args:
        folder: What `run_rows` returned.
    """
    return folder is not None and (folder / "report.json").is_file()


def read_rows(
    source: str | Path,
    classes: Sequence[str],
    manifest: Mapping[str, Any],
    *,
    feature: str,
    feature_column: str | None = None,
    label_column: str | None = None,
) -> Any:
    """Reads labelled rows as the workflow of a release would.

    Args:
        source: A folder that a run left, or what `load_text_data` or `load_image_data` take as a path.
        classes: Names of the classes that rows may have, in their order.
        manifest: The release's manifest, whose workflow names the columns.
        feature: ``"text"`` or ``"image_bytes"``.
        feature_column: The column of texts or paths, instead of the workflow's.
        label_column: The column of labels, instead of the workflow's.

    Returns:
        A `TextSplit` or an `ImageSplit`.

    Raises:
        DataError: When they cannot be read or are of other classes.
    """
    kind = "text" if feature == "text" else "image"
    section = manifest["config"].get("data")
    columns: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
    options = {name: columns[name] for name in ("text", "image", "label", "encoding") if name in columns}
    if feature_column is not None:
        options[kind] = feature_column
    if label_column is not None:
        options["label"] = label_column
    return load_labelled_rows(source, classes, kind=kind, **options)


def are_checked(split: Any, manifest: Mapping[str, Any]) -> bool:
    """Tells whether rows are those that a release was checked with.

    Args:
        split: The rows.
        manifest: The release's manifest.
    """
    return bool(split.sha256 == manifest["data"].get("test", {}).get("sha256"))


def describe_rows(split: Any, source: str | Path, manifest: Mapping[str, Any]) -> str:
    """Says what rows are.

    Args:
        split: The rows.
        source: What they were read from.
        manifest: The release's manifest.

    Returns:
        A part of a sentence.
    """
    if are_checked(split, manifest):
        return f"the test rows that the release was checked with, sha256 {split.sha256[:16]}"
    return f"{len(split):,} rows of {source}, which are not those that the release was checked with"
