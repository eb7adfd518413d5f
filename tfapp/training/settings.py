"""The settings of a training run, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfapp.data.augment import Augmentation, TextAugmentation
from tfapp.data.balancing import SAMPLINGS
from tfapp.errors import ConfigError, nearest
from tfapp.training.adversarial import AdversarialAugmentation

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("linear", "cosine", "constant")
RATE_SCALINGS = ("none", "linear", "sqrt")
MONITORS = ("val_accuracy", "val_balanced_accuracy", "val_loss", "accuracy", "balanced_accuracy", "loss")


@dataclass(frozen=True)
class Phase:
    """One stretch of training: what is trained, for how long, and how fast.

    Attributes:
        train: ``"head"``, ``"all"``, or how many of the top blocks are trained beside the head.
        epochs: Passes over the training data, 1 or more.
        learning_rate: Highest learning rate of the phase, more than 0.

    Raises:
        ConfigError: When a value is out of range.
    """

    train: Literal["head", "all"] | int
    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        blocks = isinstance(self.train, int) and not isinstance(self.train, bool) and self.train >= 1
        if self.train not in ("head", "all") and not blocks:
            raise ConfigError(
                f"phase train = {self.train!r}: use 'head', 'all', or a number of top blocks, 1 or more."
            )
        if not isinstance(self.epochs, Integral) or self.epochs < 1:
            raise ConfigError(f"phase epochs = {self.epochs}: a whole number, at least 1, is needed.")
        if not 0.0 < self.learning_rate < 1.0:
            raise ConfigError(f"phase learning_rate = {self.learning_rate}: it must lie between 0 and 1.")

    @property
    def title(self) -> str:
        """The phase in a word or two."""
        return f"top {self.train}" if isinstance(self.train, int) else self.train


DEFAULT_PHASES = (Phase("head", epochs=5, learning_rate=1e-3), Phase("all", epochs=3, learning_rate=5e-5))
"""A linear probe on cached features, then everything (Kumar et al. 2022, arXiv:2202.10054)."""


@dataclass(frozen=True)
class TrainSettings:
    """How a run trains; the arguments of `train` say what each means.

    Raises:
        ConfigError: When a value is out of range or unknown.
    """

    phases: tuple[Phase, ...] = DEFAULT_PHASES
    batch_size: int = 32
    num_microbatches: int = 1
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    schedule: str = "linear"
    learning_rate_scaling: str = "none"
    layer_decay: float = 1.0
    clip_norm: float | None = 1.0
    class_weight: Literal["balanced"] | Mapping[str, float] | None = None
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    monitor: str = "val_accuracy"
    keep_best: bool = True
    patience: int | None = None
    precision: str = "auto"
    feature_cache_megabytes: float = 2048.0
    checkpoint_steps: int | None = None
    max_length: int | None = None
    sampling: str = "natural"
    augmentation: Augmentation | TextAugmentation | None = None
    views: int = 2
    adversarial: AdversarialAugmentation | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigError("phases is empty: give at least one Phase.")
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("learning_rate_scaling", RATE_SCALINGS),
            ("monitor", MONITORS),
            ("sampling", SAMPLINGS),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"unknown {name} {value!r}; {nearest(value, choices)}")
        lower_bounds = {
            "batch_size": 1,
            "num_microbatches": 1,
            "weight_decay": 0.0,
            "feature_cache_megabytes": 0.0,
            "patience": 1,
            "checkpoint_steps": 1,
            "views": 1,
            "max_length": 3,
        }
        for name, bound in lower_bounds.items():
            value = getattr(self, name)
            whole = isinstance(bound, int)
            if value is not None and not (value >= bound and (isinstance(value, Integral) or not whole)):
                kind = "a whole number, " if whole else ""
                raise ConfigError(f"{name} = {value}: it must be {kind}at least {bound}.")
        if not 0.0 <= self.warmup_fraction < 1.0:
            raise ConfigError(f"warmup_fraction = {self.warmup_fraction}: at least 0 and less than 1.")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ConfigError(f"layer_decay = {self.layer_decay}: it must be more than 0 and at most 1.")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ConfigError(f"clip_norm = {self.clip_norm}: it must be more than 0, or None to not clip.")

    def described(self) -> dict[str, Any]:
        """The settings that decide what is learned, as plain values, for keys and records."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        del plain["checkpoint_steps"], plain["num_microbatches"]
        plain["phases"] = [[phase.train, phase.epochs, phase.learning_rate] for phase in self.phases]
        for name in ("augmentation", "adversarial"):
            plain[name] = None if plain[name] is None else plain[name].described()
        if isinstance(self.class_weight, Mapping):
            plain["class_weight"] = dict(self.class_weight)
        return plain


def class_weights(
    setting: Literal["balanced"] | Mapping[str, float] | None,
    counts: npt.NDArray[np.integer[Any]],
    classes: tuple[str, ...],
) -> npt.NDArray[np.float32] | None:
    """Resolves the weight of each class.

    Args:
        setting: None, ``"balanced"`` for ``rows / (num_classes * rows of the class)``, or weights by name;
            classes that are not named weigh 1.
        counts: Training rows of each class, integers ``(num_classes,)``.
        classes: Names of the classes.

    Returns:
        float32 ``(num_classes,)``, or None where all weigh the same.

    Raises:
        ConfigError: When a class is unknown or a weight is negative.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        if setting != "balanced":
            raise ConfigError(f"unknown class_weight {setting!r}; use 'balanced' or weights by class name.")
        balanced: npt.NDArray[Any] = counts.sum() / (len(classes) * np.maximum(counts, 1))
        return balanced.astype(np.float32)
    for name, weight in setting.items():
        if name not in classes:
            raise ConfigError(f"class_weight names the unknown class {name!r}; {nearest(name, classes)}")
        if not 0.0 <= weight < float("inf"):
            raise ConfigError(f"class_weight of {name!r} = {weight}: it must be 0 or more.")
    return np.array([setting.get(name, 1.0) for name in classes], np.float32)
