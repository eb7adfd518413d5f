"""Robust accuracy of image classifiers: which attacks run, in which order, and what is judged after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp import attacks as catalogue
from tfapp.data.grey_levels import in_grey_levels
from tfapp.errors import ConfigError, nearest
from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.robustness.measured import Measured
from tfapp.evaluation.robustness.pixels import PixelModel, attack_pixels
from tfapp.evaluation.robustness.probes import CHECKED, pixel_alarms
from tfapp.evaluation.robustness.settings import EMBEDDING_ATTACKS, AttackSettings, check_options
from tfapp.training.inference import gradient_batch_size

BLACK_BOXES = ("square",)
Step = tuple[str, Callable[..., Any], dict[str, Any]]


def pixel_attacks() -> tuple[str, ...]:
    """Names the attacks on pixels."""
    return ("standard", *sorted(set(catalogue.ATTACKS) - set(EMBEDDING_ATTACKS) - {"standard"}))


def measure_pixels(
    model: Any,
    features: Any,
    labels: npt.NDArray[np.integer],
    attack: str | Callable[..., Any],
    settings: AttackSettings,
    options: Mapping[str, Any],
    *,
    batch_size: int | None,
    alarms: bool,
) -> Measured:
    """Attacks the pixels that a model's decoder makes of images.

    Args:
        model: An image classifier.
        features: Encoded images.
        labels: Their classes ``(rows,)``.
        attack: A name, or a function.
        settings: What was asked for.
        options: Further arguments of the attack.
        batch_size: Rows computed at once; as many as fit when None.
        alarms: Whether to look for signs of masked gradients.

    Returns:
        What was measured.

    Raises:
        ConfigError: If the attack is unknown, lacks a setting, or goes beyond its budget.
        DataError: If an image cannot be read or decoded any more.
    """
    norm, epsilon = settings.norm_of("pixels"), settings.epsilon_of("pixels")
    check_options(options, "pixels")
    steps = _steps(attack, settings, dict(options), norm, len(model.classes))
    pixels = model.preprocessor.fixed(features)[0]["pixels"]
    victim = PixelModel(model, batch_size=batch_size or gradient_batch_size(*pixels.shape[1:3]))
    before = victim.predict(pixels)
    right = before.argmax(axis=1) == labels
    outcome = attack_pixels(
        victim, pixels, labels, right, steps, epsilon=epsilon, norm=norm, seed=settings.seed
    )
    after = before.copy()
    if right.any():
        after[right] = victim.predict(outcome.adversarial[right])
    white_box = " and ".join(name for name, *_ in steps if name not in BLACK_BOXES)
    found: tuple[Alarm, ...] = ()
    if alarms and white_box:
        found = pixel_alarms(
            victim,
            pixels,
            labels,
            right,
            outcome,
            white_box=white_box,
            epsilon=epsilon,
            norm=norm,
            seed=settings.seed,
        )
    return Measured(
        domain="pixels",
        norm=norm,
        epsilon=epsilon,
        before=before,
        after=after,
        survived=outcome.survived,
        per_attack=outcome.per_attack,
        originals=pixels,
        perturbed=outcome.adversarial,
        handed_on=in_grey_levels(outcome.adversarial, pixels, epsilon=epsilon, norm=norm),
        alarms=found,
        checked=CHECKED if alarms and white_box else (),
    )


def _steps(
    attack: str | Callable[..., Any],
    settings: AttackSettings,
    options: dict[str, Any],
    norm: str,
    num_classes: int,
) -> list[Step]:
    """Lists the attacks that run one after another, each with its own arguments."""
    if not isinstance(attack, str):
        return [(settings.attack, attack, {**settings.own_arguments(settings.attack, attack), **options})]
    if attack not in pixel_attacks():
        raise ConfigError(f"unknown attack on images {attack!r}; {nearest(attack, pixel_attacks())}")
    chosen = catalogue.standard_attacks if attack == "standard" else catalogue.ATTACKS[attack]
    arguments = {**settings.own_arguments(attack, chosen), **options}
    catalogue.make_attack(attack, **arguments)  # refuses what the attack does not take
    if attack != "standard":
        return [(attack, chosen, arguments)]
    members = catalogue.standard_attacks(norm, num_classes, **arguments)
    return [(name, member, {}) for name, member in members]
