"""The schema of a workflow file: every key, its type, its range and its default.

Only the command line and the workflow read this module; everything below them takes plain keyword
arguments. The defaults are those of the functions that the keys are handed to; a test compares them.
"""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tfapp.config_errors import describe
from tfapp.config_overrides import apply_override
from tfapp.config_values import (
    VARIABLE,
    CorruptionName,
    DatasetName,
    EditName,
    Fraction,
    ImageCorruptionName,
    ImageSide,
    Name,
    NotNegative,
    PathText,
    Positive,
    TextCorruptionName,
    check_trained_part,
)
from tfapp.data.datasets import DATASETS
from tfapp.data.image_limits import MAX_PIXELS, MOST_MAX_PIXELS
from tfapp.errors import ConfigError, nearest

_DATA_KEYS = {
    "text": ("text", "encoding", "max_length", "long_texts"),
    "image": ("image", "group", "unreadable", "near_duplicates", "max_pixels"),
}
PRETRAINED = "pretrained"
"""The ``weights`` of a backbone that come with its name."""

WORD_ATTACKS = ("word_substitution", "character_edits")
"""Attacks on texts."""

_BACKBONES = {"text": "minilm-l6", "image": "mobilenet-v2"}
_MODEL_KEYS = {"text": ("pooling",), "image": ("image_size", "aspect", "train_batch_norm", "weights")}


def _check_kind(section: BaseModel, kind: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Refuses keys that say something about the other kind of rows."""
    for other, names in keys.items():
        wrong = [name for name in names if name in section.model_fields_set]
        if other != kind and wrong:
            raise PydanticCustomError(
                "kind",
                "`{key}` goes with {other}s, but the rows are {kind}s; set `data.kind`, or leave it out",
                {"key": wrong[0], "other": other, "kind": kind},
            )


class Section(BaseModel):
    """A section of the workflow file: unknown keys and lenient conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class AdversarialSection(Section):
    """``[data.augment.adversarial]``: a share of the training images is attacked.

    ``model`` is the path of a ``.keras`` file or a release, relative to the workflow file.
    """

    attack: Literal["fgsm", "pgd"] | None = None
    epsilon: Annotated[float, Field(gt=0.0)] | None = None
    num_steps: Positive | None = None
    norm: Literal["linf", "l2"] | None = None
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    refresh: Literal["epoch", "never"] | None = None
    model: PathText | None = None


class AugmentSection(Section):
    """``[data.augment]``: what is done to training images, beside a preset, or to training texts."""

    preset: Literal["light", "medium", "strong"] | None = None
    horizontal_flip: bool | None = None
    vertical_flip: bool | None = None
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] | None = None
    crop: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    brightness: Fraction | None = None
    contrast: Fraction | None = None
    saturation: Fraction | None = None
    hue: Annotated[float, Field(ge=0.0, le=0.5)] | None = None
    rand_augment: Fraction | None = None
    aug_mix: Fraction | None = None
    erasing: Fraction | None = None
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    cutmix: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    adversarial: AdversarialSection | None = None
    edits: list[EditName] | None = None
    edit_share: Fraction | None = None
    edit_fraction: Fraction | None = None
    corruptions: list[CorruptionName] | None = None
    severity: Annotated[int, Field(ge=1, le=5)] | None = None
    corruption_fraction: Fraction | None = None

    def check_kind(self, kind: str) -> None:
        """Refuses what is not for texts, or not for images."""
        shared = {"corruptions", "severity", "corruption_fraction"}
        texts = {"edits", "edit_share", "edit_fraction"}
        images = set(type(self).model_fields) - shared - texts
        _check_kind(self, kind, {"text": sorted(texts), "image": sorted(images)})
        known = get_args(TextCorruptionName if kind == "text" else ImageCorruptionName)
        wrong = [name for name in self.corruptions or [] if name not in known]
        if wrong:
            raise PydanticCustomError(
                "kind",
                "`augment.corruptions`: {name} is not for {kind}s; {choices}",
                {"name": repr(wrong[0]), "kind": kind, "choices": nearest(wrong[0], known)},
            )


class RowsSection(Section):
    """Where texts or images come from, and how they are split.

    Exactly one of ``dataset`` and ``train`` is given. Paths are relative to the workflow file, may be
    globs, and may hold environment variables such as ``${TFAPP_DATA}``.
    """

    dataset: DatasetName | None = None
    train: PathText | None = None
    validation: PathText | None = None
    test: PathText | None = None
    kind: Literal["text", "image"] | None = None
    format: Literal["csv", "tsv", "jsonl", "parquet", "folder", "tfrecord", "archive"] | None = None
    encoding: str = "utf-8"
    text: str = "text"
    image: str = "path"
    label: str = "label"
    group: str | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    unreadable: Literal["skip", "refuse"] = "skip"
    near_duplicates: Literal["group", "keep"] = "group"
    max_pixels: Annotated[int, Field(ge=1, le=MOST_MAX_PIXELS)] = MAX_PIXELS

    @property
    def holds(self) -> str:
        """What a row is: ``"text"`` or ``"image"``."""
        if self.dataset is not None:
            return DATASETS[self.dataset].kind
        return self.kind or "text"

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if (self.dataset is None) == (self.train is None):
            raise PydanticCustomError("sources", "give either `dataset`, a packaged set, or `train`, a path")
        if self.dataset is not None and (self.validation or self.test or self.format):
            raise PydanticCustomError(
                "sources", "`validation`, `test` and `format` go with `train`, a path, not with `dataset`"
            )
        drawn = (self.validation_fraction if self.validation is None else 0.0) + (
            self.test_fraction if self.test is None else 0.0
        )
        if drawn >= 1.0:
            raise PydanticCustomError(
                "sources", "`validation_fraction` and `test_fraction` together leave no rows to train on"
            )
        if self.kind is not None and self.kind != self.holds:
            raise PydanticCustomError(
                "sources", "`{dataset}` holds {kind}s", {"dataset": self.dataset, "kind": self.holds}
            )
        return self


class DataSection(RowsSection):
    """``[data]``: the texts or images to learn, and what is done to them."""

    max_length: Annotated[int, Field(ge=3)] | None = None
    long_texts: Literal["truncate", "windows"] = "truncate"
    augment: Literal["light", "medium", "strong", "none"] | AugmentSection | None = None

    @model_validator(mode="after")
    def _check_keys(self) -> DataSection:
        _check_kind(self, self.holds, _DATA_KEYS)
        if isinstance(self.augment, AugmentSection):
            self.augment.check_kind(self.holds)
        elif self.augment not in (None, "none") and self.holds == "text":
            raise PydanticCustomError(
                "kind",
                "`augment = {preset}` is for images; texts take a section `[data.augment]`, such as "
                "edits = ['swap', 'keyboard']",
                {"preset": repr(self.augment)},
            )
        return self


class ModelSection(Section):
    """``[model]``: the pretrained backbone and the head on it.

    Without ``backbone``, texts get ``minilm-l6`` and images ``mobilenet-v2``. ``weights`` is the path of a
    file of weights for an image network given by name, relative to the workflow file.
    """

    backbone: PathText | None = None
    weights: PathText = PRETRAINED
    pooling: Literal["mean", "cls", "pooler"] | None = None
    image_size: ImageSide | Annotated[list[ImageSide], Field(min_length=2, max_length=2)] | None = None
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    train_batch_norm: bool = False
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    allow_unsafe: bool = False


class Top(Section):
    """``{ top = k }``: the top ``k`` blocks of the backbone, and the head."""

    top: Positive


class PhaseSection(Section):
    """``[[transfer.phases]]``: what is trained, for how long, at which peak learning rate."""

    train: Annotated[Literal["head", "all"] | Top, BeforeValidator(check_trained_part)]
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]


class SourceSection(RowsSection):
    """``[transfer.source]``: a second data set, of the same kind, that is learned beside ``[data]``.

    Its loss weighs ``alpha``, or the best of several on the validation rows of ``[data]``.
    """

    alpha: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = 1.0
    alpha_schedule: Literal["constant", "linear", "cosine"] = "constant"
    source_share: Annotated[float, Field(gt=0.0)] = 1.0


class TransferSection(Section):
    """``[transfer]``: the phases of the fine-tuning, in order; without them, those of `tfapp.train`."""

    phases: Annotated[list[PhaseSection], Field(min_length=1)] | None = None
    source: SourceSection | None = None


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
    sampling: Literal["natural", "balanced"] = "natural"
    views: Positive = 2
    monitor: Literal[
        "val_accuracy", "val_balanced_accuracy", "val_loss", "accuracy", "balanced_accuracy", "loss"
    ] = "val_accuracy"
    keep_best: bool = True
    patience: Positive | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    objective: Literal["standard"] = "standard"
    feature_cache_megabytes: Annotated[float, Field(ge=0.0)] = 2048.0


class HardenSection(Section):
    """``[harden]``: adversarial training of the transferred model.

    ``objective`` is one of `tfapp.objectives.OBJECTIVES`, and the keys that are not set are its defaults; one
    that it does not have is refused. Without ``phases``, everything is trained for 3 epochs at 5e-5. The last
    epoch is kept unless ``keep_best`` says otherwise: the best on clean rows is seldom the most robust.
    ``probe`` watches single-step attacks on images for catastrophic overfitting.
    """

    objective: Literal[
        "adversarial", "free", "trades", "mart", "fgm", "freelb", "smart", "vat", "word_augmented"
    ]
    phases: Annotated[list[PhaseSection], Field(min_length=1)] | None = None
    keep_best: bool = False
    probe: bool = True
    epsilon: NotNegative | None = None
    norm: Literal["linf", "l2"] | None = None
    num_steps: Positive | None = None
    step_size: NotNegative | None = None
    random_start: bool | None = None
    adversarial_weight: Fraction | None = None
    batch_norm: Literal["clean", "adversarial"] | None = None
    beta: NotNegative | None = None
    weight: NotNegative | None = None
    start: Fraction | None = None
    replays: Positive | None = None
    variants: Positive | None = None


class AttackSection(Section):
    """``[evaluate.attack]``: the attack under which robust accuracy is measured, of model and artifacts."""

    attack: Literal[
        "standard",
        "fgsm",
        "pgd",
        "apgd",
        "apgd_t",
        "fab",
        "square",
        "word_substitution",
        "character_edits",
    ] = "standard"
    epsilon: Annotated[float, Field(gt=0.0)] | None = None
    norm: Literal["linf", "l2"] | None = None
    num_steps: Positive | None = None
    num_restarts: Positive | None = None
    examples: Positive = 500
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class EvaluateSection(Section):
    """``[evaluate]``: how the trained model is measured."""

    batch_size: Positive = 128
    num_bootstrap: Positive = 1000
    calibrate: bool = True
    ledger: bool = False
    attack: AttackSection | None = None


class ExportSection(Section):
    """``[export]``: which artifacts are written; by default all that the model can be exported as."""

    variants: (
        Annotated[
            list[Literal["saved_model", "keras", "float32", "float16", "dynamic", "int8", "text"]],
            Field(min_length=1),
        ]
        | None
    ) = None
    black_box_queries: Annotated[int, Field(ge=0)] = 200
    black_box_examples: Annotated[int, Field(ge=0)] = 50


class VerifySection(Section):
    """``[verify]``: the budget of every artifact; one beyond it refuses the release."""

    min_agreement: Fraction = 0.99
    max_accuracy_drop: Fraction = 0.01
    max_abs_difference: Fraction | None = None
    max_exact_difference: Fraction = 0.01
    max_scale_error: Fraction = 0.1
    max_golden_difference: Fraction = 0.5
    min_robust_accuracy: Fraction | None = None
    max_robust_accuracy_drop: Fraction = 0.02


class WorkflowConfig(Section):
    """A whole workflow file."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSection
    model: ModelSection = ModelSection()
    transfer: TransferSection = TransferSection()
    train: TrainSection = TrainSection()
    harden: HardenSection | None = None
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    verify: VerifySection = VerifySection()

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _check_model(self) -> WorkflowConfig:
        _check_kind(self.model, self.data.holds, _MODEL_KEYS)
        source = self.transfer.source
        if source is not None:
            if (source.dataset or source.kind) and source.holds != self.data.holds:
                raise PydanticCustomError(
                    "kind",
                    "`transfer.source` holds {other}s, but `data` holds {kind}s",
                    {"other": source.holds, "kind": self.data.holds},
                )
            _check_kind(source, self.data.holds, _DATA_KEYS)
        self._check_attack()
        return self

    def _check_attack(self) -> None:
        attack = self.evaluate.attack
        if attack is None:
            if self.verify.min_robust_accuracy is not None:
                raise PydanticCustomError(
                    "attack", "`verify.min_robust_accuracy` is measured under `[evaluate.attack]`; add it"
                )
            return
        kind = self.data.holds
        if attack.attack != "standard" and (attack.attack in WORD_ATTACKS) != (kind == "text"):
            raise PydanticCustomError(
                "attack",
                "`evaluate.attack.attack` = {attack} does not go with {kind}s; 'standard' does",
                {"attack": attack.attack, "kind": kind},
            )
        if kind == "text" and attack.norm is not None:
            raise PydanticCustomError(
                "attack", "`evaluate.attack.norm` goes with images; for texts epsilon is a share of words"
            )

    @property
    def backbone(self) -> str:
        """The backbone's name or path as the file has it, or the default for such rows."""
        return self.model.backbone or _BACKBONES[self.data.holds]

    def resolve(self, path: str) -> str:
        """Makes a path of the file absolute: variables filled in, relative to the file's folder.

        Args:
            path: A path or glob as the file has it.

        Returns:
            The absolute path, or the glob: what exists is a path, and only the signs that stand in the file
            make a pattern, not those in the names of the folders before it.
        """
        plain = self._folder / Path(_fill(path, os.environ.__getitem__)).expanduser()
        if plain.exists() or not glob.has_magic(path):
            return str(plain)
        pattern = _fill(path, lambda variable: glob.escape(os.environ[variable]))
        return str(Path(glob.escape(str(self._folder))) / Path(pattern).expanduser())

    def resolve_backbone(self) -> str:
        """Tells a preset's name from a path: what exists beside the workflow file is meant as such.

        Returns:
            The absolute path, or the name as it stands.
        """
        backbone = self.backbone
        path = self.resolve(backbone)
        is_path = "${" in backbone or backbone.startswith((".", "/", "~"))
        return path if is_path or Path(path).exists() else backbone

    def resolve_weights(self) -> str:
        """Finds the file of the backbone's weights, if one is named.

        Returns:
            Its absolute path, or ``"pretrained"``.

        Raises:
            ConfigError: There is no such file.
        """
        weights = self.model.weights
        if weights == PRETRAINED:
            return weights
        path = self.resolve(weights)
        try:
            with Path(path).open("rb"):
                return path
        except FileNotFoundError as error:
            raise ConfigError(
                f"model.weights = {weights!r}: there is no file {path}; name a .h5 or .safetensors file, or "
                f"leave the key out for the weights of {self.backbone!r}."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"model.weights = {weights!r}: {path} cannot be read ({error.strerror}); name a file that "
                "you may read."
            ) from error


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
        apply_override(document, override)
    try:
        config = WorkflowConfig.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError(describe(problems, WorkflowConfig, path, overrides)) from error
    config._folder = path.resolve().parent
    return config


def _fill(path: str, value: Callable[[str], str]) -> str:
    return VARIABLE.sub(lambda match: value(match[1]), path)
