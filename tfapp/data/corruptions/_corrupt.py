"""Corrupting many images or texts: each by itself, as the seed and its own content decide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.data.corruptions._levels import SEVERITIES, SMALLEST_SIDE, ImageCorruption
from tfapp.data.corruptions.blur import (
    defocus_blur,
    elastic_transform,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from tfapp.data.corruptions.digital import contrast, jpeg_compression, pixelate, saturate
from tfapp.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from tfapp.data.corruptions.texts import asr, case, emoji, punctuation, typos, whitespace
from tfapp.data.corruptions.weather import brightness, fog, frost, snow
from tfapp.errors import ConfigError, DataError, nearest

_RANK, _CHANNELS = 4, 3
_SEED_BYTES = 16

IMAGE_CORRUPTIONS: dict[str, ImageCorruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "brightness": brightness,
    "fog": fog,
    "frost": frost,
    "snow": snow,
    "contrast": contrast,
    "saturate": saturate,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "elastic_transform": elastic_transform,
}
"""Corruptions of images, in the families of ImageNet-C: noise, blur, weather, digital."""

TEXT_CORRUPTIONS: dict[str, Callable[[str, int, np.random.Generator], str]] = {
    "typos": typos,
    "case": case,
    "punctuation": punctuation,
    "emoji": emoji,
    "whitespace": whitespace,
    "asr": asr,
}
"""Corruptions of texts."""


def check_corruption(name: str, severity: int, known: Collection[str]) -> None:
    """Refuses a corruption that there is not.

    Args:
        name: Of the corruption.
        severity: 1 to 5.
        known: `IMAGE_CORRUPTIONS` or `TEXT_CORRUPTIONS`.

    Raises:
        ConfigError: When the name is unknown or the severity out of range.
    """
    if name not in known:
        raise ConfigError(f"unknown corruption {name!r}; {nearest(str(name), list(known))}")
    if not isinstance(severity, Integral) or isinstance(severity, bool) or severity not in SEVERITIES:
        raise ConfigError(f"severity = {severity!r}: a whole number from 1 to 5 is needed.")


def corrupt_images(images: Any, name: str, severity: int, seed: int = 0) -> npt.NDArray[Any]:
    """Corrupts images, each as the seed and its own pixels decide, whatever the others are.

    At 32 pixels the severities are those of CIFAR-10-C, at 224 those of ImageNet-C, and between lies what is
    between; the family's files say where numbers are ours. The published sets were stored as JPEG, ours are
    not: numbers compare within tfapp, not with papers.

    Args:
        images: uint8, or floats 0..255, ``(batch, height, width, 3)``, 32 pixels or more a side.
        name: A key of `IMAGE_CORRUPTIONS`.
        severity: 1 to 5.
        seed: A whole number, 0 or more; all severities draw from the same numbers.

    Returns:
        Images of the same shape and type, 0..255; uint8 ones are rounded.

    Raises:
        ConfigError: When the name is unknown, or the severity or the seed out of range.
        DataError: When the images have another shape, type or range.

    Reference:
        Hendrycks and Dietterich 2019, Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations, arXiv:1903.12261.
    """
    check_corruption(name, severity, IMAGE_CORRUPTIONS)
    seed = _checked_seed(seed)
    images = np.asarray(images)
    if images.ndim != _RANK or images.shape[3] != _CHANNELS or min(images.shape[1:3]) < SMALLEST_SIDE:
        raise DataError(
            f"images of shape {images.shape} cannot be corrupted: (batch, height, width, 3) is needed, with "
            f"{SMALLEST_SIDE} pixels or more a side."
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"images of type {images.dtype} cannot be corrupted: use uint8, or floats 0..255.")
    if images.dtype != np.uint8 and images.size and not (images.min() >= 0.0 and images.max() <= 255.0):
        raise DataError(f"images from {images.min():g} to {images.max():g}: values must lie in 0..255.")
    return (
        np.stack([corrupt_image(image, name, severity, seed) for image in images]) if len(images) else images
    )


def corrupt_image(image: npt.NDArray[Any], name: str, severity: int, seed: int) -> npt.NDArray[Any]:
    """Corrupts one image ``(height, width, 3)`` that was checked before; see `corrupt_images`."""
    rounded = image if image.dtype == np.uint8 else np.rint(image).astype(np.uint8)
    rng = _random(seed, name, rounded.tobytes())
    scaled = image.astype(np.float32) / np.float32(255.0)
    changed = np.clip(IMAGE_CORRUPTIONS[name](scaled, severity, rng), 0.0, 1.0) * 255.0
    return (np.rint(changed) if image.dtype == np.uint8 else changed).astype(image.dtype)


def corrupt_texts(texts: Sequence[str], name: str, severity: int, seed: int = 0) -> list[str]:
    """Corrupts texts, each as the seed and its own letters decide, whatever the others are.

    Args:
        texts: The texts. Words are told apart by spaces, so ``case`` and ``asr`` do little to Chinese.
        name: A key of `TEXT_CORRUPTIONS`.
        severity: 1 to 5; what a low severity changes, a higher one changes too.
        seed: A whole number, 0 or more.

    Returns:
        As many texts.

    Raises:
        ConfigError: When the name is unknown, or the severity or the seed out of range.
    """
    check_corruption(name, severity, TEXT_CORRUPTIONS)
    seed = _checked_seed(seed)
    return [corrupt_text(text, name, severity, seed) for text in texts]


def corrupt_text(text: str, name: str, severity: int, seed: int) -> str:
    """Corrupts one text; see `corrupt_texts`."""
    rng = _random(seed, name, text.encode("utf-8", "surrogatepass"))
    return TEXT_CORRUPTIONS[name](text, severity, rng)


def _checked_seed(seed: Any) -> int:
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 256**_SEED_BYTES:
        raise ConfigError(f"seed = {seed!r}: a whole number, at least 0 and less than 2^128, is needed.")
    return int(seed)


def _random(seed: int, name: str, content: bytes) -> np.random.Generator:
    digest = hashlib.blake2b(
        content, digest_size=16, person=name.encode()[:16], salt=seed.to_bytes(_SEED_BYTES, "little")
    )
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))
