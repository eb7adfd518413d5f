"""What is done to training images, as plain numbers, and its doing in a `tf.data` pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any

import tensorflow as tf

from tfapp.data.augment._corrupting import checked_corruptions
from tfapp.data.augment._draws import Draws
from tfapp.data.augment._pixels import chosen, rounded
from tfapp.data.augment.aug_mix import aug_mix
from tfapp.data.augment.colour import colour
from tfapp.data.augment.corruptions import corruptions
from tfapp.data.augment.cutmix import cutmix
from tfapp.data.augment.erasing import erasing
from tfapp.data.augment.geometry import geometry
from tfapp.data.augment.mixup import mixup
from tfapp.data.augment.rand_augment import rand_augment
from tfapp.data.corruptions import IMAGE_CORRUPTIONS
from tfapp.errors import ConfigError, check_known, nearest

# Bounds, and whether the lower one is itself allowed.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "rotation": (0.0, 180.0, True),
    "crop": (0.0, 1.0, False),
    "brightness": (0.0, 1.0, True),
    "contrast": (0.0, 1.0, True),
    "saturation": (0.0, 1.0, True),
    "hue": (0.0, 0.5, True),
    "rand_augment": (0.0, 1.0, True),
    "aug_mix": (0.0, 1.0, True),
    "erasing": (0.0, 1.0, True),
    "corruption_fraction": (0.0, 1.0, True),
    "mixup": (0.0, 10.0, True),
    "cutmix": (0.0, 10.0, True),
}
# Where a kind has settings of other names than its own.
_SETTINGS = {
    "geometry": ("horizontal_flip", "vertical_flip", "rotation", "crop"),
    "colour": ("brightness", "contrast", "saturation", "hue"),
    "corruptions": ("corruptions", "severity", "corruption_fraction"),
}
# Settings that only say how another one is done.
_DETAILS = {"severity": "corruptions", "corruption_fraction": "corruptions"}
_MIXING = ("mixup", "cutmix")

AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "geometry": geometry,
    "rand_augment": rand_augment,
    "aug_mix": aug_mix,
    "colour": colour,
    "erasing": erasing,
    "corruptions": corruptions,
    "mixup": mixup,
    "cutmix": cutmix,
}
"""Every kind of augmentation, in the order in which they are done."""


Augment = Callable[[dict[str, tf.Tensor], tf.Tensor, tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]]
"""Changes a batch: of inputs, labels and a seed, int64 ``(2,)``, makes inputs and labels."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to training images; everything is off unless it is asked for.

    Each image gets numbers of its own, and a seed decides all of them: nothing is remembered between
    batches, so that a run that goes on sees the pictures of an unbroken one. (Keras's layers of these names
    count in variables, draw RandAugment's operations for a whole batch and AugMix's once for all batches.)

    Attributes:
        horizontal_flip: Whether left and right are exchanged, in every other image.
        vertical_flip: Whether above and below are exchanged, in every other image.
        rotation: Largest angle in degrees, to either side, 0 to 180.
        crop: Smallest share of the area that a random resized crop keeps, more than 0; 1 crops nothing.
        brightness: Largest share of the range of grey levels that is added or taken away, 0 to 1.
        contrast: Largest change of the contrast as a share of it, 0 to 1.
        saturation: Largest change of the saturation as a share of it, 0 to 1.
        hue: Largest turn of the colour circle to either side, as a share of it, 0 to 0.5.
        rand_augment: Strength of RandAugment's two operations an image, 0 to 1; 0.3 is usual.
        aug_mix: Largest strength of AugMix's operations, 0 to 1; 0.3 is usual.
        erasing: Probability that a rectangle of 2 % to 33 % of the area becomes noise, 0 to 1.
        corruptions: Keys of `IMAGE_CORRUPTIONS` to draw from; they take images of 32 pixels or more a side.
        severity: Highest severity of a corruption, 1 to 5; each from 1 up to it is equally likely.
        corruption_fraction: Probability that an image is corrupted, 0 to 1.
        mixup: Parameter of MixUp's Beta distribution, 0 to 10; 0.2 is usual, 0 mixes nothing.
        cutmix: Parameter of CutMix's Beta distribution, 0 to 10; 1 is usual, 0 mixes nothing. With both,
            each image is mixed in one of the two ways.

    Raises:
        ConfigError: When a value is of another type or out of its range.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    rotation: float = 0.0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    rand_augment: float = 0.0
    aug_mix: float = 0.0
    erasing: float = 0.0
    corruptions: Sequence[str] = ()
    severity: int = 3
    corruption_fraction: float = 0.5
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        names = checked_corruptions(self.corruptions, self.severity, IMAGE_CORRUPTIONS)
        object.__setattr__(self, "corruptions", names)
        for name, value in asdict(self).items():
            if name in ("corruptions", "severity"):
                continue
            if name not in _RANGES:
                if not isinstance(value, bool):
                    raise ConfigError(f"augmentation {name} = {value!r}: it must be true or false.")
                continue
            low, high, included = _RANGES[name]
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not (low <= value <= high and (included or value > low)):
                least = "at least" if included else "more than"
                raise ConfigError(
                    f"augmentation {name} = {value!r}: a number is needed, {least} {low:g} and at most "
                    f"{high:g}."
                )

    @property
    def mixes_labels(self) -> bool:
        """Whether images are mixed with each other, so that labels become distributions."""
        return bool(self.mixup or self.cutmix)

    def without_mixing(self) -> Augmentation | None:
        """What is done to images one by one; None where that is nothing."""
        return make_augmentation(replace(self, mixup=0.0, cutmix=0.0))

    def described(self) -> dict[str, Any]:
        """What is switched on, as plain values, for keys and records; equal runs have equal ones."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {
            name: float(value) if isinstance(value, Real) and not isinstance(value, bool) else value
            for name, (value, default) in values.items()
            if value != default and getattr(self, _DETAILS.get(name, name))
        }

    def images(self, pixels: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        """Changes every image of a batch in a way of its own.

        Args:
            pixels: uint8 ``(batch, height, width, 3)``.
            seed: int64 ``(2,)``; the same seed gives the same bits, on any number of threads.

        Returns:
            uint8 of the same shape.
        """
        shape, draws = pixels.shape, Draws(seed, tf.shape(pixels)[0])
        asked = self.described()
        for kind, change in AUGMENTATIONS.items():
            settings = {name: asked[name] for name in _SETTINGS.get(kind, (kind,)) if name in asked}
            if settings and kind not in _MIXING:
                pixels = change(pixels, draws, **settings)
        return tf.ensure_shape(rounded(pixels), shape)

    def mix(
        self, pixels: tf.Tensor, labels: tf.Tensor, num_classes: int, *, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes images of a batch with each other, and their labels.

        Args:
            pixels: uint8 ``(batch, height, width, 3)``.
            labels: Class indices, int32 ``(batch,)``.
            num_classes: How many classes there are.
            seed: int64 ``(2,)``; it may be the one given to `images`.

        Returns:
            Pixels, uint8 of the same shape, and distributions over the classes, float32
            ``(batch, num_classes)``.
        """
        shape, draws = pixels.shape, Draws(seed, tf.shape(pixels)[0])
        shares = tf.one_hot(labels, num_classes)
        ways = [
            AUGMENTATIONS[kind](pixels, shares, draws, **{kind: getattr(self, kind)})
            for kind in _MIXING
            if getattr(self, kind)
        ]
        images, targets = ways.pop(0) if ways else (pixels, shares)
        images = rounded(images)
        for others, other_targets in ways:
            first = draws.chance("mixup or cutmix")
            images = chosen(first, images, rounded(others))
            targets = tf.where(first[:, tf.newaxis], targets, other_targets)
        return tf.ensure_shape(images, shape), targets

    def for_batches(self, num_classes: int, *, input_name: str = "pixels") -> Augment:
        """Makes the function that `training_batches` takes as ``augment``.

        Args:
            num_classes: How many classes there are.
            input_name: The input that holds pixels.

        Returns:
            A function of inputs, labels and seed that gives inputs and labels; labels are distributions
            where images are mixed, and stay class indices otherwise.
        """

        def augment(
            inputs: dict[str, tf.Tensor], labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            pixels = self.images(inputs[input_name], seed=seed)
            if self.mixes_labels:
                pixels, labels = self.mix(pixels, labels, num_classes, seed=seed)
            return {**inputs, input_name: pixels}, labels

        # There is no control flow to convert, and looking for it takes seconds.
        plain: Augment = tf.autograph.experimental.do_not_convert(augment)
        return plain


PRESETS = {
    "light": Augmentation(horizontal_flip=True, crop=0.8, brightness=0.1, contrast=0.1),
    "medium": Augmentation(
        horizontal_flip=True, rotation=10.0, crop=0.5, brightness=0.2, contrast=0.2, saturation=0.2
    ),
    "strong": Augmentation(horizontal_flip=True, crop=0.25, rand_augment=0.3, erasing=0.25),
}
"""Augmentations by name; none mixes labels, so that all of them serve cached views, too."""


def make_augmentation(setting: str | Mapping[str, Any] | Augmentation | None) -> Augmentation | None:
    """Resolves what a user asks for.

    Args:
        setting: A key of `PRESETS`; ``"none"``; the arguments of `Augmentation` by name, with ``preset``
            among them where they change a preset; an augmentation, which is returned as it is; or None.

    Returns:
        The augmentation, or None where nothing is changed.

    Raises:
        ConfigError: When a name is unknown, or a value is of another type or out of its range.
    """
    if setting is None or setting == "none":
        return None
    if isinstance(setting, Augmentation):
        return setting if setting.described() else None
    choices = (*PRESETS, "none")
    if isinstance(setting, str):
        if setting not in PRESETS:
            raise ConfigError(f"unknown augmentation {setting!r}; {nearest(setting, choices)}")
        return PRESETS[setting]
    if not isinstance(setting, Mapping):
        raise ConfigError(
            f"augmentation = {setting!r}: use a name ({', '.join(choices)}) or a table of settings."
        )
    known = [field.name for field in fields(Augmentation)]
    check_known(setting, (*known, "preset"), "augmentation setting")
    changes = dict(setting)
    preset = changes.pop("preset", None)
    base = make_augmentation(preset)
    augmentation = Augmentation(**{**(asdict(base) if base else {}), **changes})
    return augmentation if augmentation.described() else None
