"""The manifest of a release: what it holds, how it was measured, and the checksum of every file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tfapp.errors import ReleaseError

FILE_NAME = "manifest.json"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_CHUNK = 1 << 20

Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Verdict = Literal["released", "refused"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Latency(_Part):
    """Milliseconds of single calls."""

    p50: Annotated[float, Field(gt=0)]
    p95: Annotated[float, Field(gt=0)]
    threads: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]


class BlackBox(_Part):
    """An attack that asked the artifact itself."""

    attack: str
    num_queries: Annotated[int, Field(ge=1)]
    examples: Annotated[int, Field(ge=0)]
    fooled: Annotated[int, Field(ge=0)]


class Robustness(_Part):
    """How an artifact's robust accuracy was measured, and the model's under the same attack.

    Examples are drawn from the split by the seed. `transfer_accuracy` is what is left after the adversarial
    examples that were made on the model; pixels are rounded to whole grey levels within the budget. Robust
    accuracies leave out rows that the model itself loses, and what the black boxes on the model and on the
    artifact would fool, reckoned from the rows that they tried; `black_box` is the artifact's own, null where
    it had none.
    """

    attack: str
    norm: str
    epsilon: Annotated[float, Field(gt=0)]
    num_steps: int | None
    num_restarts: int | None
    split: str
    examples: Annotated[int, Field(ge=1)]
    seed: int
    model_robust_accuracy: Fraction
    robust_accuracy_drop: Annotated[float, Field(ge=-1, le=1)]
    transfer_accuracy: Fraction
    interval95: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    black_box: BlackBox | None


class Artifact(_Part):
    """One artifact and its measures against the trained model."""

    variant: Literal["saved_model", "keras", "float32", "float16", "dynamic", "int8", "text", "onnx"]
    path: str
    bytes: Annotated[int, Field(ge=0)]
    examples: Annotated[int, Field(ge=1)]
    agreement: Fraction | None
    max_abs_difference: Fraction | None
    accuracy: Fraction | None
    accuracy_drop: Annotated[float, Field(ge=-1, le=1)] | None
    scale: float | None
    scale_rows: Annotated[int, Field(ge=0)]
    robust_accuracy: Fraction | None
    robustness: Robustness | None = None
    latency_ms: Latency | None
    verdict: Verdict
    reasons: list[str]


class Split(_Part):
    """The size and fingerprint of a split of the data."""

    rows: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Limits(_Part):
    """How far an artifact might be from the trained model; see `tfapp.Budget`."""

    min_agreement: Fraction
    max_accuracy_drop: Fraction
    max_abs_difference: Fraction | None
    max_exact_difference: Fraction
    max_scale_error: Fraction
    max_golden_difference: Fraction
    min_robust_accuracy: Fraction | None = None
    max_robust_accuracy_drop: Fraction = 0.02


class ReleaseState(_Part):
    """Whether the release passed its gate, and within which limits."""

    verdict: Verdict
    reasons: list[str]
    budget: Limits


# In JSON schema's words what `Manifest` checks across its fields.
_RELEASED_WHOLE: dict[str, Any] = {
    "if": {"properties": {"release": {"properties": {"verdict": {"const": "released"}}}}},
    "then": {
        "properties": {
            "version": {"type": "integer"},
            "release": {"properties": {"reasons": {"maxItems": 0}}},
            "artifacts": {"items": {"properties": {"verdict": {"const": "released"}}}},
        }
    },
}


class Manifest(_Part):
    """Everything that `manifest.json` says."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[int, Field(ge=1)] | None
    tfapp_version: str
    libraries: dict[str, str]
    seed: int | None
    config: dict[str, Any]
    data: dict[str, Split]
    metrics: dict[str, Any]
    release: ReleaseState
    files: Annotated[dict[str, Sha256], Field(min_length=1)]
    artifacts: Annotated[list[Artifact], Field(min_length=1)]

    model_config = ConfigDict(json_schema_extra=_RELEASED_WHOLE)

    @model_validator(mode="after")
    def _check_released(self) -> Manifest:
        if self.release.verdict == "refused":
            return self
        if self.version is None:
            raise PydanticCustomError("released", "release.verdict is 'released', but version is null")
        refused = [artifact.variant for artifact in self.artifacts if artifact.verdict == "refused"]
        if refused or self.release.reasons:
            named = ", ".join(refused) or "release.reasons"
            raise PydanticCustomError(
                "released", "release.verdict is 'released', but {named} says otherwise", {"named": named}
            )
        return self


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of `manifest.json`, which is also in ``manifest.schema.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold: numbers that are not finite become null.

    Args:
        value: Mappings, sequences, numbers, strings and paths.

    Returns:
        The same as dicts, lists, numbers, strings, booleans and None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def write_manifest(directory: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `manifest.json`.

    Args:
        directory: The release's folder.
        content: The manifest.

    Returns:
        What was written.

    Raises:
        ReleaseError: When the content breaks the schema.
    """
    checked = _checked(plain(content), directory / FILE_NAME)
    text = json.dumps(checked, ensure_ascii=False, indent=2) + "\n"
    (directory / FILE_NAME).write_text(text, encoding="utf-8")
    return checked


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads and checks `manifest.json`.

    Args:
        directory: A release's folder.

    Returns:
        The manifest.

    Raises:
        ReleaseError: When there is none, or it breaks the schema.
    """
    path = directory / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{directory} has no {FILE_NAME}: it is not a release. Give a version folder, such as "
            "saved_models/<name>/1."
        ) from error
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read ({error}); copy or export the release again.") from error
    return _checked(content, path)


def version_folder(path: str | Path) -> Path:
    """Finds the release that a path means.

    Args:
        path: A version folder, or ``saved_models/<name>`` for its newest version.

    Returns:
        The absolute path of the version folder.

    Raises:
        ReleaseError: When it is neither.
    """
    directory = Path(path).expanduser().absolute()
    if not directory.is_dir():
        raise ReleaseError(f"{directory} is not a folder; give a release such as saved_models/<name>/1.")
    if (directory / FILE_NAME).is_file():
        return directory
    versions = [child for child in directory.iterdir() if child.name.isdecimal() and child.is_dir()]
    if not versions:
        raise ReleaseError(
            f"{directory} is not a release and has no released version: it holds neither {FILE_NAME} nor a "
            "folder with a number for a name."
        )
    return max(versions, key=lambda child: int(child.name))


def hash_files(directory: Path) -> dict[str, str]:
    """Computes the checksum of every file but the manifest.

    Args:
        directory: A release's folder.

    Returns:
        sha256 in hexadecimal by path, relative to the folder, with ``/`` and in order.
    """
    return {name: sha256(directory / name) for name in listing(directory)}


def listing(directory: Path) -> list[str]:
    """Lists every file but the manifest.

    Args:
        directory: A release's folder.

    Returns:
        Paths relative to the folder, with ``/`` and in order.
    """
    paths = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in paths if (name := path.relative_to(directory).as_posix()) != FILE_NAME)


def sha256(path: Path) -> str:
    """Computes the checksum of a file.

    Args:
        path: The file.

    Returns:
        sha256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_files(directory: Path, files: Mapping[str, str], *, present: Iterable[str]) -> list[str]:
    """Compares files with their checksums.

    Args:
        directory: A release's folder.
        files: Checksums of the files that must be there, by relative path.
        present: The relative paths that are there and in question.

    Returns:
        What is wrong, a sentence each.
    """
    found = set(present)
    reasons = [f"{name} is missing" for name in sorted(set(files) - found)]
    reasons += [f"{name} is not listed in the manifest" for name in sorted(found - set(files))]
    for name in sorted(found & set(files)):
        path = directory / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or path.is_symlink():
            reasons.append(f"{name} is not a plain file inside the release")
        elif sha256(path) != files[name]:
            reasons.append(f"{name} is damaged: its sha256 is not the manifest's")
    return reasons


def find_damage(directory: Path) -> list[str]:
    """Says what is wrong with the files of a release.

    Args:
        directory: A version folder.

    Returns:
        What is wrong, a sentence each; empty when every file is that of the manifest.
    """
    try:
        manifest = read_manifest(directory)
    except ReleaseError as error:
        return [str(error)]
    return check_files(directory, manifest["files"], present=listing(directory))


def _checked(content: Any, path: Path) -> dict[str, Any]:
    try:
        Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ReleaseError(f"{path}: {where}: {first['msg']}. Export the release again.") from error
    return dict(content)
