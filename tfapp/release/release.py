"""A released version, as export returns it and as it is found on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfapp.release.manifest import manifest_checksum, read_manifest


@dataclass(frozen=True)
class Release:
    """A released version.

    Attributes:
        path: The version folder, ``saved_models/<name>/<version>``.
        version: Its number.
        manifest: What `manifest.json` says.
        manifest_sha256: The checksum of that file, which stands for the whole release: keep it elsewhere and
            give it to `verify` and `load_release`, which then take no other.
    """

    path: Path
    version: int
    manifest: dict[str, Any]
    manifest_sha256: str

    @classmethod
    def load(cls, path: str | Path) -> Release:
        """Reads the manifest of a released version, without checking its files.

        Args:
            path: A version folder.

        Returns:
            The release.

        Raises:
            ReleaseError: When it is no version folder.
        """
        directory = Path(path).absolute()
        checksum = manifest_checksum(directory)
        manifest = read_manifest(directory, manifest_sha256=checksum)
        return cls(directory, int(manifest["version"] or 0), manifest, checksum)

    def table(self) -> list[dict[str, str]]:
        """Returns a row for each artifact, for people to read."""
        return artifact_table(self.manifest)


def artifact_table(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lays out the artifacts of a manifest for people to read.

    Args:
        manifest: The manifest.

    Returns:
        A row for each artifact, all with the same columns.
    """

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def scale(row: Mapping[str, Any]) -> str:
        if row["scale"] is not None:
            return f"{row['scale']:.3f} on {row['scale_rows']} of {row['examples']} rows"
        return "-" if row["agreement"] is None else "not measurable"

    return [
        {
            "artifact": row["variant"],
            "path": row["path"],
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "agreement": number(row["agreement"], ".2%"),
            "max difference": number(row["max_abs_difference"], ".5f"),
            "accuracy": number(row["accuracy"], ".4f"),
            "drop": number(row["accuracy_drop"], ".4f"),
            "robust": number(row.get("robust_accuracy"), ".4f"),
            "scale": scale(row),
            "p50 ms": number((row["latency_ms"] or {}).get("p50"), ".2f"),
            "p95 ms": number((row["latency_ms"] or {}).get("p95"), ".2f"),
            "verdict": row["verdict"],
        }
        for row in manifest["artifacts"]
    ]
