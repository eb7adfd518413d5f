"""What a manifest holds: its parts, their types and ranges, and what must agree with what."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tfapp.release.layout import MANIFEST_FILE, artifact_file, artifact_path, is_model_file

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
# No part of a path may be "." or "..", nor hold what another system takes for a separator or a drive.
_PATH_PART = r"\.{0,2}[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]*"

Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=rf"^{_PATH_PART}(/{_PATH_PART})*$", max_length=400)]
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
    path: Literal["."] | RelativePath
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


class LeftOut(_Part):
    """A variant that went beyond its budget and was not asked for: no file of it is in the release."""

    variant: Literal["float16", "dynamic", "int8", "text", "onnx"]
    reasons: Annotated[list[str], Field(min_length=1)]


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
    files: Annotated[
        dict[RelativePath, Sha256], Field(min_length=1, json_schema_extra={"additionalProperties": False})
    ]
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    left_out: list[LeftOut] = Field(default_factory=list)

    model_config = ConfigDict(json_schema_extra=_RELEASED_WHOLE)

    @model_validator(mode="after")
    def _check_files(self) -> Manifest:
        taken: dict[str, str] = {}
        for name in self.files:
            # Names that some file systems take for one.
            folded = unicodedata.normalize("NFC", name).casefold()
            other = taken.setdefault(folded, name)
            if other != name or folded == MANIFEST_FILE:
                message = "files: '{name}' and '{other}' are one file on some systems"
                shown = MANIFEST_FILE if folded == MANIFEST_FILE else other
                raise PydanticCustomError("files", message, {"name": name, "other": shown})
        for folded, name in taken.items():
            for above in map(str, PurePosixPath(folded).parents):
                if above in taken:
                    message = "files: '{name}' cannot lie inside the file '{above}'"
                    raise PydanticCustomError("files", message, {"name": name, "above": taken[above]})
        return self

    @model_validator(mode="after")
    def _check_artifacts(self) -> Manifest:
        # Readers find an artifact by its variant or by its path; all of them must find the same one, and
        # no model may lie in the release that none of them looks at.
        known: set[str] = set()
        for variant, path in ((artifact.variant, artifact.path) for artifact in self.artifacts):
            place = artifact_path(variant)
            if path != place:
                message = "artifacts: '{variant}' lies in '{path}', but its place is '{place}'"
                raise PydanticCustomError(
                    "artifacts", message, {"variant": variant, "path": path, "place": place}
                )
            if artifact_file(variant) in known:
                raise PydanticCustomError(
                    "artifacts", "artifacts: '{variant}' stands twice", {"variant": variant}
                )
            known.add(artifact_file(variant))
        for row in self.left_out:
            if artifact_file(row.variant) in known:
                message = "left_out: '{variant}' is one of the artifacts"
                raise PydanticCustomError("left_out", message, {"variant": row.variant})
        for name in self.files:
            if is_model_file(name) and name not in known:
                raise PydanticCustomError(
                    "artifacts", "files: '{name}' is a model that no artifact is", {"name": name}
                )
        return self

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
        for artifact in self.artifacts:
            if artifact_file(artifact.variant) not in self.files:
                raise PydanticCustomError(
                    "released", "artifact '{path}' is no file of the release", {"path": artifact.path}
                )
        return self


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of `manifest.json`, which is also in ``manifest.schema.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
