"""Perturbations in the Euclidean norm, relative to what they perturb."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import norms as norms_of
from tfapp.attacks._ball import unit
from tfapp.errors import ConfigError
from tfapp.objectives._step import Perturbable

EMBEDDING_EPSILON = 0.1
"""Default radius, as a share of the example's own norm."""


def check_number(name: str, value: float, *, positive: bool = False, most: float = math.inf) -> float:
    """Refuses a number that is negative, not finite or out of range.

    Args:
        name: What the setting is called.
        value: The number.
        positive: Whether it must be more than 0.
        most: Greatest value that is allowed.

    Returns:
        The number.

    Raises:
        ConfigError: When it cannot be used.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: it must be a finite number.")
    if not 0.0 <= value <= most or (positive and value == 0.0):
        limits = "at least 0" if most == math.inf else f"from 0 to {most:g}"
        if positive:
            limits = "more than 0" if most == math.inf else f"more than 0, at most {most:g}"
        raise ConfigError(f"{name} = {value}: it must be {limits}.")
    return float(value)


def check_count(name: str, value: int) -> int:
    """Refuses what is no whole number from 1.

    Args:
        name: What the setting is called.
        value: The number.

    Returns:
        The number.

    Raises:
        ConfigError: When it cannot be used.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{name} = {value!r}: it must be a whole number, at least 1.")
    return int(value)


def masked(place: Perturbable, values: tf.Tensor) -> tf.Tensor:
    """Sets what stands at padding to zero."""
    if place.mask is None:
        return values
    return values * tf.cast(place.mask, values.dtype)[..., tf.newaxis]


def norms(place: Perturbable, values: tf.Tensor) -> tf.Tensor:
    """The Euclidean norm of each example, padding left out, in a shape that multiplies the values."""
    return tf.reshape(norms_of(masked(place, values)), [-1, *[1] * (len(values.shape) - 1)])


def towards(place: Perturbable, gradient: Any, length: tf.Tensor | float) -> tf.Tensor:
    """The step of a length along a gradient, however small that is; none where it is zero.

    Args:
        place: What is perturbed.
        gradient: Shaped like its values.
        length: A number, or one for each example in a shape that multiplies the values.

    Returns:
        A perturbation shaped like the values, zero at padding.
    """
    return unit(masked(place, tf.convert_to_tensor(gradient))) * length


def within(place: Perturbable, perturbation: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Shortens perturbations to a radius, and keeps perturbed pixels within their bounds."""
    length = norms(place, perturbation)
    shorter = tf.where(length > radius, perturbation * tf.math.divide_no_nan(radius, length), perturbation)
    if place.bounds is None:
        return shorter
    values = tf.stop_gradient(place.values)
    return tf.clip_by_value(values + shorter, *place.bounds) - values


def radii(place: Perturbable, epsilon: float) -> tf.Tensor:
    """The radius of each example: a share of its own norm, in a shape that multiplies the values."""
    return epsilon * norms(place, tf.stop_gradient(place.values))


def noise(place: Perturbable, radius: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Random perturbations of a length, each in a direction of its own.

    Args:
        place: What is perturbed.
        radius: Length for each example, in a shape that multiplies the values.
        seed: int32 ``(2,)``, of the step and the replica.

    Returns:
        Perturbations shaped like the values, zero at padding.
    """
    drawn = tf.random.stateless_normal(tf.shape(place.values), seed)
    return towards(place, tf.ensure_shape(drawn, place.values.shape), radius)
