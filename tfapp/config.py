"""The schema of a workflow file: every key, its type, its range and its default.

Only the command line and the workflow read this module; everything below them takes plain keyword
arguments. The defaults are those of the functions that the keys are handed to; a test compares them.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tfapp.errors import ConfigError, nearest

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


def _check_name(value: Any) -> Any:
    if isinstance(value, str) and not _NAME.fullmatch(value):
        raise PydanticCustomError(
            "name",
            "it becomes a folder and a model name: 1 to 64 of a-z, 0-9, '_', '-', first a letter or digit",
        )
    return value


def _check_variables(value: Any) -> Any:
    for variable in _VARIABLE.findall(value) if isinstance(value, str) else ():
        if not os.environ.get(variable):
            raise PydanticCustomError(
                "variable",
                "the environment variable {variable} is not set; set it to the folder that is meant, such as "
                "`export {variable}=/path/to/data`",
                {"variable": variable},
            )
    return value


def _check_trained_part(value: Any) -> Any:
    if value in ("head", "all"):
        return value
    top = value.get("top") if isinstance(value, dict) and set(value) == {"top"} else None
    if isinstance(top, int) and not isinstance(top, bool) and top >= 1:
        return value
    raise PydanticCustomError(
        "trained_part", "choices: 'head', 'all', or { top = k } for the top k blocks, k a whole number from 1"
    )


PathText = Annotated[str, BeforeValidator(_check_variables), Field(min_length=1)]


class Section(BaseModel):
    """A section of the workflow file: unknown keys and lenient conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """``[data]``: where the texts come from, and how they are split and cut.

    Exactly one of ``dataset`` and ``train`` is given. Paths are relative to the workflow file, may be
    globs, and may hold environment variables such as ``${TFAPP_DATA}``.
    """

    dataset: str | None = None
    train: PathText | None = None
    validation: PathText | None = None
    test: PathText | None = None
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder"] | None = None
    encoding: str = "utf-8"
    text: str = "text"
    label: str = "label"
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    max_length: Annotated[int, Field(ge=3)] | None = None
    long_texts: Literal["truncate", "windows"] = "truncate"

    @model_validator(mode="after")
    def _check_sources(self) -> DataSection:
        if (self.dataset is None) == (self.train is None):
            raise PydanticCustomError("sources", "give either `dataset`, a packaged set, or `train`, a path")
        if self.dataset is not None and (self.validation or self.test or self.format):
            raise PydanticCustomError(
                "sources", "`validation`, `test` and `format` go with `train`, a path, not with `dataset`"
            )
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise PydanticCustomError(
                "sources", "`validation_fraction` and `test_fraction` together leave no rows to train on"
            )
        return self


class ModelSection(Section):
    """``[model]``: the pretrained backbone and the head on it."""

    backbone: PathText = "minilm-l6"
    pooling: Literal["mean", "cls", "pooler"] | None = None
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    allow_unsafe: bool = False


class Top(Section):
    """``{ top = k }``: the top ``k`` blocks of the backbone, and the head."""

    top: Positive


class PhaseSection(Section):
    """``[[transfer.phases]]``: what is trained, for how long, at which peak learning rate."""

    train: Annotated[Literal["head", "all"] | Top, BeforeValidator(_check_trained_part)]
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]


class TransferSection(Section):
    """``[transfer]``: the phases of the fine-tuning, in order; without them, those of `tfapp.train`."""

    phases: Annotated[list[PhaseSection], Field(min_length=1)] | None = None


class TrainSection(Section):
    """``[train]``: how each phase is trained."""

    batch_size: Positive = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0.0)]] | None = None
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy"
    keep_best: bool = True
    patience: Positive | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    objective: Literal["standard"] = "standard"
    feature_cache_megabytes: Annotated[float, Field(ge=0.0)] = 2048.0


class EvaluateSection(Section):
    """``[evaluate]``: how the trained model is measured."""

    batch_size: Positive = 128
    num_bootstrap: Positive = 1000
    calibrate: bool = True


class ExportSection(Section):
    """``[export]``: which artifacts are written; by default all that the model can be exported as."""

    variants: (
        Annotated[
            list[Literal["saved_model", "keras", "float32", "float16", "dynamic", "text"]],
            Field(min_length=1),
        ]
        | None
    ) = None


class VerifySection(Section):
    """``[verify]``: the budget of every artifact; one beyond it refuses the release."""

    min_agreement: Fraction = 0.99
    max_accuracy_drop: Fraction = 0.01
    max_abs_difference: Fraction | None = None
    max_exact_difference: Fraction = 0.01


class WorkflowConfig(Section):
    """A whole workflow file."""

    name: Annotated[str, BeforeValidator(_check_name)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSection
    model: ModelSection = ModelSection()
    transfer: TransferSection = TransferSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    verify: VerifySection = VerifySection()

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    def resolve(self, path: str) -> str:
        """Makes a path of the file absolute: variables filled in, relative to the file's folder.

        Args:
            path: A path or glob as the file has it.

        Returns:
            The absolute path or glob.
        """
        filled = _VARIABLE.sub(lambda match: os.environ[match[1]], path)
        return str(self._folder / Path(filled).expanduser())

    def resolve_backbone(self) -> str:
        """Tells a preset's name from a folder: a folder that exists beside the file is meant as such.

        Returns:
            The absolute path of the folder, or the name as it stands.
        """
        backbone = self.model.backbone
        path = self.resolve(backbone)
        is_path = "${" in backbone or backbone.startswith((".", "/", "~"))
        return path if is_path or Path(path).is_dir() else backbone


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> WorkflowConfig:
    """Reads a workflow file and checks every key of it.

    Args:
        path: The TOML file.
        overrides: ``key=value`` settings that replace the file's, keys dotted, values as in TOML (a bare
            word is a string): ``train.batch_size=16``, ``transfer.phases.0.epochs=1``.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: The file cannot be read, or keys or values are wrong; all of them are listed.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        beside = [str(other) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = f"; {nearest(str(path), beside)}" if beside else ""
        raise ConfigError(f"{path}: no such workflow file{hint}") from error
    except OSError as error:
        raise ConfigError(f"{path}: the workflow file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        _apply(document, override)
    try:
        config = WorkflowConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_describe(error.errors(include_url=False), path, overrides)) from error
    config._folder = path.resolve().parent
    return config


def _apply(document: dict[str, Any], override: str) -> None:
    """Sets one ``key=value`` in a parsed workflow file."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: expected key=value, such as --set train.batch_size=16")
    place: Any = document
    for position, part in enumerate(parts):
        where = ".".join(parts[:position]) or "the file"
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(
                    f"--set {override}: {where} is a list of {len(place)} in the file; "
                    f"{part!r} is none of its positions, which count from 0"
                )
        elif not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {where} is a value, so it has no key {part!r}")
        index: Any = int(part) if isinstance(place, list) else part
        if position == len(parts) - 1:
            place[index] = _parse_value(override, text.strip())
        else:
            place = place[index] if isinstance(place, list) else place.setdefault(part, {})


def _parse_value(override: str, text: str) -> Any:
    """Reads a value as TOML does; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"--set {override}: {text} is not a TOML value: {error}") from error
        return text


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list in [ ]",
    "dict_type": "must be a section of name = value",
    "model_type": "must be a section",
    "model_attributes_type": "must be a section",
    "missing": "missing; add it",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def _describe(problems: Sequence[ErrorDetails], path: Path, overrides: Sequence[str]) -> str:
    """Words the findings of pydantic, a line for each key: file, key, value, what is wrong, and the cure."""
    overridden = [override.partition("=")[0].strip() for override in overrides]
    findings: dict[str, list[str]] = {}
    for problem in problems:
        location = [part for part in problem["loc"] if isinstance(part, int) or _is_key(part)]
        key = ".".join(str(part) for part in location)
        from_override = any(f"{key}.".startswith(f"{name}.") for name in overridden if name)
        where = ": ".join(filter(None, ["--set" if from_override else str(path), key]))
        value = problem["input"]
        if problem["type"] not in ("extra_forbidden", "missing") and not isinstance(value, Mapping):
            where += f" = {value!r}"
        findings.setdefault(where, []).append(_explain(problem, location))
    return "\n".join(f"{where}: {' or '.join(dict.fromkeys(texts))}" for where, texts in findings.items())


def _explain(problem: ErrorDetails, location: Sequence[str | int]) -> str:
    """Says what is wrong with one value, and what would be right."""
    if problem["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(location[-1]), _section_at(location[:-1]).model_fields)}"
    if problem["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
        return nearest(str(problem["input"]), choices)
    return _WORDS.get(problem["type"], problem["msg"].replace("Input should be", "must be"))


def _is_key(part: str) -> bool:
    """Tells keys of the file from the names of union members, which pydantic puts in locations."""
    return part.isidentifier() and part != Top.__name__


def _section_at(location: Sequence[str | int]) -> type[Section]:
    """Finds the schema of the section at a location, for the names of its keys."""
    section: type[Section] = WorkflowConfig
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next(kind for kind in _sections_in(annotation))
    return section


def _sections_in(annotation: Any) -> Iterable[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)
