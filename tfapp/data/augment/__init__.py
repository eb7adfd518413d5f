"""Augmentation of training data: of images one file a kind, all of them in `AUGMENTATIONS`; and of texts."""

from tfapp.data.augment._adversarial import REFRESHES, adversarial_batches, with_adversarial
from tfapp.data.augment._augmentation import AUGMENTATIONS, PRESETS, Augment, Augmentation, make_augmentation
from tfapp.data.augment._texts import VARIANTS, TextAugmentation, make_text_augmentation
from tfapp.data.augment._views import AugmentedViews

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "REFRESHES",
    "VARIANTS",
    "Augment",
    "Augmentation",
    "AugmentedViews",
    "TextAugmentation",
    "adversarial_batches",
    "make_augmentation",
    "make_text_augmentation",
    "with_adversarial",
]
