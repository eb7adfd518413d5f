"""AugMix: an image blended with several chains of operations on it."""

from __future__ import annotations

import tensorflow as tf

from tfapp.data.augment._draws import Draws
from tfapp.data.augment._operations import OPERATIONS, operate
from tfapp.data.augment._pixels import along, rounded

_CHAINS = 3
_LONGEST = 3
# Brightness, contrast, saturation and sharpness stay out: robustness is measured on such corruptions.
_CHOICES = tuple(
    OPERATIONS.index(name)
    for name in (
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
        "posterize",
        "solarize",
        "auto_contrast",
        "equalize",
    )
)


def aug_mix(pixels: tf.Tensor, draws: Draws, *, aug_mix: float) -> tf.Tensor:
    """Blends each image with three chains of one to three operations on it.

    Args:
        pixels: uint8 or float32 ``(batch, height, width, 3)``, 0..255.
        draws: Random numbers of the batch.
        aug_mix: Largest strength of an operation, 0 to 1; the paper's severity 3 of 10 is 0.3.

    Returns:
        float32 ``(batch, height, width, 3)``.

    Reference:
        Hendrycks et al. 2020, AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty,
        arXiv:1912.02781, without its consistency loss.
    """
    pixels = rounded(pixels)
    draws = draws.within("aug_mix")
    kept = draws.shares("kept", 2, 1.0)[:, 0]
    shares = draws.shares("chains", _CHAINS, 1.0) * (1.0 - kept)[:, tf.newaxis]
    mixed = tf.cast(pixels, tf.float32) * along(kept)
    for chain in range(_CHAINS):
        length = 1 + draws.below(f"length {chain}", _LONGEST)
        copy = pixels
        for step in range(_LONGEST):
            name = f"{chain} {step}"
            operation = tf.gather(_CHOICES, draws.below(name, len(_CHOICES)))
            strength = draws.uniform(f"strength {name}", -aug_mix, aug_mix)
            copy = operate(copy, tf.where(step < length, operation, OPERATIONS.index("identity")), strength)
        mixed += tf.cast(copy, tf.float32) * along(shares[:, chain])
    return mixed
