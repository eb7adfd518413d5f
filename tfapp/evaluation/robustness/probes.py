"""The measurements behind the alarms, on a few rows of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.drawing import draw_numbers
from tfapp.evaluation.alarms import (
    Alarm,
    black_box_stronger,
    does_not_fall_to_zero,
    noise_as_strong,
    zero_gradients,
)
from tfapp.evaluation.robustness.answers import without_gradient
from tfapp.evaluation.robustness.pixel_budget import BOUNDS
from tfapp.evaluation.robustness.pixels import PixelModel, PixelOutcome, run_attack

PROBE_ROWS = 64
NOISE_DRAWS = 10
BLACK_BOX_QUERIES = 500
UNBOUNDED_STEPS = 20
UNBOUNDED_EPSILON = 0.5
"""In ``linf`` half of the range makes every image plain grey; in ``l2`` the same takes this times the root
of the number of values."""

CHECKED = ("zero_gradients", "noise_as_strong", "black_box_stronger", "does_not_fall_to_zero")


def pixel_alarms(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    right: npt.NDArray[np.bool_],
    outcome: PixelOutcome,
    *,
    white_box: str,
    epsilon: float,
    norm: str,
    seed: int,
) -> tuple[Alarm, ...]:
    """Looks for signs of masked gradients, on some rows that are right before the attack.

    Args:
        victim: The model.
        pixels: The rows that were attacked ``(rows, height, width, 3)``.
        labels: Their classes ``(rows,)``.
        right: Which are right before the attack, ``(rows,)``.
        outcome: What the attacks made of them.
        white_box: Those of the attacks that use gradients, in words; empty when there are none.
        epsilon: Their budget.
        norm: ``"linf"`` or ``"l2"``.
        seed: Seed of what is drawn.

    Returns:
        The alarms that went off.
    """
    from tfapp.attacks import ATTACKS

    probed = draw_numbers(np.flatnonzero(right), PROBE_ROWS, seed=seed)
    if not len(probed) or not white_box:
        return ()
    some, classes = pixels[probed], labels[probed]
    fooled = right[probed] & ~outcome.survived[probed]
    noisy = _fooled_by_noise(victim, some, classes, epsilon=epsilon, norm=norm, seed=seed)
    size = UNBOUNDED_EPSILON if norm == "linf" else UNBOUNDED_EPSILON * math.sqrt(some[0].size)
    far = run_attack(
        victim,
        some,
        classes,
        ATTACKS["pgd"],
        seed=seed,
        label="probe without a budget",
        epsilon=size,
        norm=norm,
        num_steps=UNBOUNDED_STEPS,
    )
    survivors = int(np.sum(victim.predict(far).argmax(axis=1) == classes))
    black_box = _black_box(
        victim, pixels, labels, outcome, white_box, ATTACKS, epsilon=epsilon, norm=norm, seed=seed
    )
    found = [
        zero_gradients(attack=white_box, zero_rows=_zero_rows(victim, some, classes), probed=len(probed)),
        noise_as_strong(
            attack=white_box,
            fooled_by_noise=int(noisy.sum()),
            fooled_by_attack=int(fooled.sum()),
            probed=len(probed),
        ),
        black_box,
        does_not_fall_to_zero(
            attack=white_box, epsilon=f"{size:.4g}", survivors=survivors, probed=len(probed)
        ),
    ]
    return tuple(alarm for alarm in found if alarm is not None)


def _black_box(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    outcome: PixelOutcome,
    white_box: str,
    attacks: dict[str, Callable[..., Any]],
    *,
    epsilon: float,
    norm: str,
    seed: int,
) -> Alarm | None:
    """Takes the figures of an ensemble's own black box, or tries a short one on some survivors."""
    examples = len(labels)
    own = {figures.name: figures for figures in outcome.per_attack}.get("square")
    if own is not None:
        return black_box_stronger(
            attack=white_box,
            black_box="square",
            fooled=own.fooled,
            probed=own.attacked,
            survivors=own.attacked,
            examples=examples,
        )
    survivors = np.flatnonzero(outcome.survived)
    rows = draw_numbers(survivors, PROBE_ROWS, seed=seed)
    if not len(rows):
        return None
    made = run_attack(
        victim,
        pixels[rows],
        labels[rows],
        attacks["square"],
        seed=seed,
        label="probe with a black box",
        epsilon=epsilon,
        norm=norm,
        num_queries=BLACK_BOX_QUERIES,
    )
    return black_box_stronger(
        attack=white_box,
        black_box=f"square with {BLACK_BOX_QUERIES} queries",
        fooled=int(np.sum(victim.predict(made).argmax(axis=1) != labels[rows])),
        probed=len(rows),
        survivors=len(survivors),
        examples=examples,
    )


def _fooled_by_noise(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    *,
    epsilon: float,
    norm: str,
    seed: int,
) -> npt.NDArray[np.bool_]:
    """Draws noise on the surface of the ball, several times, and tells which rows any of it fools."""
    generator = np.random.default_rng(seed)
    fooled = np.zeros(len(pixels), bool)
    for _ in range(NOISE_DRAWS):
        if norm == "linf":
            noise = epsilon * generator.choice((-1.0, 1.0), pixels.shape)
        else:
            noise = generator.standard_normal(pixels.shape)
            lengths = np.sqrt(np.sum(noise**2, axis=(1, 2, 3), keepdims=True))
            noise *= epsilon / np.maximum(lengths, 1e-12)
        noisy = np.clip(pixels + 255.0 * noise, *BOUNDS).astype(np.float32)
        fooled |= victim.predict(noisy).argmax(axis=1) != labels
    return fooled


def _zero_rows(victim: PixelModel, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> int:
    """Counts rows whose cross-entropy has no gradient at the pixels."""
    count = 0
    for start in range(0, len(pixels), victim.batch_size):
        inputs = tf.constant(pixels[start : start + victim.batch_size], tf.float32)
        classes = tf.constant(labels[start : start + victim.batch_size], tf.int32)
        count += int(np.sum(without_gradient(victim.model_fn, inputs, classes).numpy()))
    return count
