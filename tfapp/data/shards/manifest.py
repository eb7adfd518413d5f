"""The manifest of a folder of shards: what is in them, what they are made from, whether they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfapp.data.report import DataReport, Dropped, ImageSummary
from tfapp.disk import replace_file
from tfapp.errors import DataError

MANIFEST = "shards.json"
"""The file of a folder of shards that names them; it is written last."""

FEATURES = {"text": "text", "image": "image_bytes"}
"""The feature of an Example that holds the row, as the signature ``serve_examples`` takes it, by kind."""

SplitName = Literal["train", "validation", "test"]
_CHUNK = 1 << 20
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Shard(_Record):
    """One file of Examples.

    Attributes:
        file: Its name in the folder.
        split: The split that its rows belong to.
        rows: How many rows it holds.
        bytes: Its size.
        sha256: Its checksum, hexadecimal.
    """

    file: Annotated[str, Field(pattern=r"^(train|validation|test)-\d{5}-of-\d{5}\.tfrecord$")]
    split: SplitName
    rows: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(_Record):
    """What ``shards.json`` holds.

    Attributes:
        schema_version: Of this file.
        kind: What a row is.
        task: What a label is.
        classes: The class names in their order; an Example's feature ``label`` holds one of them.
        seed: Decides splits and order.
        key: Checksum of the settings and of the source: what shards can be finished by the same call.
        settings: What `write_shards` was called with.
        sources: What was read, in words, and its ``fingerprint``.
        rows_read: Rows of each source.
        rows: Rows of each split.
        class_counts: Rows of each class in each split.
        dropped: What was left out, why and where the first of it stood.
        images: What the images are like; None for texts.
        shards: The files, in the order of split and number.
    """

    schema_version: Literal[1]
    kind: Literal["text", "image"]
    task: Literal["single_label"]
    classes: Annotated[list[str], Field(min_length=2)]
    seed: int
    key: str
    settings: dict[str, Any]
    sources: dict[str, str]
    rows_read: dict[str, Count]
    rows: dict[SplitName, Count]
    class_counts: dict[SplitName, dict[str, Count]]
    dropped: list[dict[str, Any]]
    images: dict[str, Any] | None
    shards: list[Shard]


@dataclass(frozen=True)
class Shards:
    """A folder of shards whose files are all there.

    Attributes:
        directory: The folder.
        manifest: What it holds.
    """

    directory: Path
    manifest: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in their order."""
        return tuple(self.manifest.classes)

    def of(self, split: str) -> list[Shard]:
        """The shards of a split, in their order."""
        return [shard for shard in self.manifest.shards if shard.split == split]

    def paths(self, split: str) -> list[str]:
        """The absolute paths of a split's shards, in their order."""
        return [str(self.directory / shard.file) for shard in self.of(split)]

    def sha256(self, split: str) -> str:
        """Fingerprint of a split: of its classes and the checksums of its shards."""
        parts = [*self.classes, *(shard.sha256 for shard in self.of(split))]
        return hashlib.sha256("\0".join(["tfapp shards 1", *parts]).encode()).hexdigest()

    @property
    def report(self) -> DataReport:
        """What was read and left out."""
        manifest = self.manifest
        return DataReport(
            sources={name: words for name, words in manifest.sources.items() if name != "fingerprint"},
            rows_read=dict(manifest.rows_read),
            rows=dict(manifest.rows.items()),
            class_counts={split: dict(counts) for split, counts in manifest.class_counts.items()},
            dropped=tuple(
                Dropped(**{**each, "examples": tuple(each["examples"])}) for each in manifest.dropped
            ),
            images=None if manifest.images is None else ImageSummary.from_dict(manifest.images),
        )

    def check(self, *, verify: bool = False) -> None:
        """Refuses shards that are missing or not what was written.

        Args:
            verify: Whether the checksum of every file is compared, not only its size.

        Raises:
            DataError: For all of them at once.
        """
        found = [(shard.file, fault(self.directory, shard, verify=verify)) for shard in self.manifest.shards]
        bad = [f"{file} {problem}" for file, problem in found if problem]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise DataError(
                f"{self.directory}: {'; '.join(bad[:5])}{more}. Run the same `tfapp data shard` again, which "
                "writes only what is missing or damaged."
            )


def load_shards(directory: str | Path, *, verify: bool = False) -> Shards:
    """Opens a folder of shards.

    Args:
        directory: The folder.
        verify: Whether checksums are compared, which reads every file; sizes always are.

    Returns:
        The shards.

    Raises:
        DataError: When the manifest is missing or damaged, or a shard is missing or not what was written.
    """
    directory = Path(directory).expanduser().absolute()
    shards = Shards(directory, read_manifest(directory))
    shards.check(verify=verify)
    return shards


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest of a folder.

    Args:
        directory: The folder.

    Returns:
        The manifest.

    Raises:
        DataError: When it is missing or damaged.
    """
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{directory} holds no finished shards: there is no {path}; write them with `tfapp data shard`."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path} is damaged or of another version of tfapp ({where}: {first['msg']}); remove it and run "
            "the same `tfapp data shard` again."
        ) from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest of a folder, whole and at once.

    Args:
        directory: The folder.
        manifest: The manifest.
    """
    replace_file(directory / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def fault(directory: Path, shard: Shard, *, verify: bool) -> str | None:
    """Tells what is wrong with a shard.

    Args:
        directory: Its folder.
        shard: The shard.
        verify: Whether its checksum is compared too.

    Returns:
        The fault in words, or None.
    """
    path = directory / shard.file
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            return f"has {size:,} bytes instead of {shard.bytes:,}"
        if verify and file_sha256(path) != shard.sha256:
            return "is damaged (sha256 differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def file_sha256(path: Path) -> str:
    """Computes the checksum of a file.

    Args:
        path: The file.

    Returns:
        Hexadecimal sha256.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def joined_dropped(parts: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Adds up what several workers left out.

    Args:
        parts: Entries of ``split``, ``reason``, ``rows`` and ``examples``, in a fixed order.
        limit: Most examples of one reason.

    Returns:
        One entry for each split and reason, in the order in which they occur.
    """
    joined: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        entry = joined.setdefault(
            (part["split"], part["reason"]),
            {"split": part["split"], "reason": part["reason"], "rows": 0, "examples": []},
        )
        entry["rows"] += part["rows"]
        entry["examples"] += part["examples"][: limit - len(entry["examples"])]
    return list(joined.values())
