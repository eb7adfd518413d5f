"""Augmentation of training images: one file a kind, all of them in `AUGMENTATIONS`."""

from tfapp.data.augment._adversarial import with_adversarial
from tfapp.data.augment._augmentation import AUGMENTATIONS, PRESETS, Augment, Augmentation, make_augmentation
from tfapp.data.augment._views import AugmentedViews

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "Augment",
    "Augmentation",
    "AugmentedViews",
    "make_augmentation",
    "with_adversarial",
]
