"""The sections of a workflow file that say what the rows are, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tfapp.config_values import (
    CorruptionName,
    DatasetName,
    EditName,
    Fraction,
    ImageCorruptionName,
    PathText,
    Positive,
    ServiceAddress,
    TextCorruptionName,
)
from tfapp.data.datasets import DATASETS
from tfapp.data.image_limits import MAX_PIXELS, MOST_MAX_PIXELS
from tfapp.errors import nearest

DATA_KEYS = {
    "text": ("text", "encoding", "max_length", "long_texts"),
    "image": ("image", "group", "unreadable", "near_duplicates", "max_pixels"),
}
"""Keys that go with one kind of rows only."""


def check_kind(section: BaseModel, kind: str, keys: Mapping[str, Sequence[str]]) -> None:
    """Refuses keys that say something about the other kind of rows.

    Args:
        section: A section of the file.
        kind: What the rows are: ``"text"`` or ``"image"``.
        keys: Keys that go with one kind only, by kind.

    Raises:
        PydanticCustomError: If such a key was given; the message names it.
    """
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

    ``model`` is the path of a ``.keras`` file or of a release's version, relative to the workflow file; its
    classes are those of the rows in the same order.
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
        check_kind(self, kind, {"text": sorted(texts), "image": sorted(images)})
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
    """``[data]``: the texts or images to learn, and what is done to them.

    ``train`` may be a folder that `tfapp data shard` wrote: it has all three splits, and is read batch by
    batch while training. ``service`` names what `tfapp data serve` answers, which then makes the batches.
    """

    max_length: Annotated[int, Field(ge=3)] | None = None
    long_texts: Literal["truncate", "windows"] = "truncate"
    augment: Literal["light", "medium", "strong", "none"] | AugmentSection | None = None
    service: ServiceAddress | Annotated[list[ServiceAddress], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_keys(self) -> DataSection:
        check_kind(self, self.holds, DATA_KEYS)
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
