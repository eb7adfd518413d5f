"""What every attack refuses, and the form in which it takes images, labels and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

import tensorflow as tf

from tfapp.data.pixel_budgets import check_pixel_budget
from tfapp.errors import ConfigError, DataError, nearest

ModelFn: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
Seed: TypeAlias = int | tf.Tensor

NORMS = ("linf", "l2")


def check_settings(
    *,
    epsilon: Any,
    norm: str = "l2",
    step_size: Any = None,
    **counts: int,
) -> None:
    """Refuses settings that no attack can run with.

    Args:
        epsilon: The budget; a number is checked, a tensor is taken as it is.
        norm: One of `NORMS`; in ``"linf"``, the norm of pixels alone, fractions are at most 1.
        step_size: Like ``epsilon``, or None for the attack's default.
        **counts: Whole numbers that must be at least 1, such as ``num_steps``.

    Raises:
        ConfigError: Naming the setting, its value and what it may be.
    """
    if norm not in NORMS:
        raise ConfigError(f"unknown norm {norm!r}; {nearest(str(norm), NORMS)}")
    _check_fraction("epsilon", epsilon, norm)
    if step_size is not None:
        _check_fraction("step_size", step_size, norm)
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ConfigError(f"{name} = {count!r}: it must be a whole number, 1 or more.")


def as_bounds(bounds: Sequence[float]) -> tuple[float, float]:
    """Takes the bounds of an input in any form of two numbers.

    Args:
        bounds: Lowest and highest value.

    Returns:
        The same as a tuple of Python numbers, which names a compiled attack.

    Raises:
        ConfigError: When they are not two finite numbers, the lower one first.
    """
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"bounds = {bounds!r}: they must be two finite numbers, the lower one first.")
    return low, high


def _check_fraction(name: str, value: Any, norm: str) -> None:
    if tf.is_tensor(value):
        return
    number = not isinstance(value, bool) and isinstance(value, Real)
    if not number or not 0.0 <= value < math.inf:
        raise ConfigError(f"{name} = {value!r}: it must be a finite number, 0 or more.")
    check_pixel_budget(name, value, norm)


def as_images(images: Any, bounds: tuple[float, float]) -> tf.Tensor:
    """Takes a batch of images as a tensor, its values checked where they are known.

    Args:
        images: Floating point, ``(batch, ...)``, within ``bounds``.
        bounds: Lowest and highest value.

    Returns:
        The same images as a tensor.

    Raises:
        DataError: When they are not floating point, have no batch, or lie outside the bounds. Inside a
            `tf.function` values are not known and not checked.
    """
    pixels = tf.convert_to_tensor(images)
    if not pixels.dtype.is_floating:
        raise DataError(
            f"the images are {pixels.dtype.name}: an attack moves pixels by fractions, so cast them to "
            "float32 and keep their range, for example with tf.cast(images, tf.float32)."
        )
    if pixels.shape.rank is not None and pixels.shape.rank < 2:
        raise DataError(f"the images have the shape {tuple(pixels.shape)}: expected (batch, ...).")
    if not tf.executing_eagerly() or 0 in pixels.shape:
        return pixels
    low, high = float(tf.reduce_min(pixels)), float(tf.reduce_max(pixels))
    if not (bounds[0] <= low and high <= bounds[1]):
        raise DataError(
            f"the images have values from {low:g} to {high:g}, outside bounds = {bounds!r}: give the bounds "
            "of what the model takes, (0.0, 255.0) for raw pixels or (0.0, 1.0) for scaled ones."
        )
    return pixels


def check_sides(images: Any, attack: str) -> None:
    """Refuses images that have no height and width.

    Args:
        images: What an attack with squares is given.
        attack: Its name, for the message.

    Raises:
        DataError: When they are not ``(batch, height, width, channels)`` of known size.
    """
    shape = tf.convert_to_tensor(images).shape
    if shape.rank != 4 or None in shape[1:]:
        raise DataError(
            f"the images have the shape {shape}: {attack} needs (batch, height, width, channels)."
        )


def check_rows(inputs: tf.Tensor, labels: tf.Tensor) -> None:
    """Refuses labels of another number than the inputs, as far as the numbers are known.

    Args:
        inputs: ``(batch, ...)``.
        labels: What `as_labels` answers.

    Raises:
        DataError: When the numbers differ.
    """
    if not inputs.shape[:1].is_compatible_with(labels.shape[:1]):
        raise DataError(f"there are {inputs.shape[0]} inputs and {labels.shape[0]} labels.")


def check_classes(labels: tf.Tensor, num_classes: int | None) -> None:
    """Refuses labels outside the model's classes; called eagerly, where their values are known.

    Args:
        labels: What `as_labels` answers.
        num_classes: How many classes the model knows; None where that is not known.

    Raises:
        DataError: When a label is no class, or a distribution is over another number of classes.
    """
    if num_classes is None:
        return
    if labels.shape.rank == 2:
        if labels.shape[1] != num_classes:
            raise DataError(
                f"the labels are distributions over {labels.shape[1]} classes, and the model has "
                f"{num_classes}."
            )
        return
    outside = tf.boolean_mask(labels, (labels < 0) | (labels >= num_classes))
    if len(outside):
        raise DataError(
            f"label {int(outside[0])} is outside the model's classes, which are 0 to {num_classes - 1}."
        )


def as_labels(labels: Any) -> tf.Tensor:
    """Takes labels in any of their usual forms.

    Args:
        labels: Class indices of any integer type, ``(batch,)`` or ``(batch, 1)``, or distributions over the
            classes, floating point ``(batch, num_classes)``.

    Returns:
        int32 ``(batch,)``, or float32 ``(batch, num_classes)`` for distributions.

    Raises:
        DataError: When they have another form.
    """
    given = tf.convert_to_tensor(labels)
    rank = given.shape.rank
    if given.dtype.is_integer and rank == 2 and given.shape[1] == 1:
        return tf.cast(given[:, 0], tf.int32)
    if given.dtype.is_integer and rank == 1:
        return tf.cast(given, tf.int32)
    if given.dtype.is_floating and rank == 2:
        return tf.cast(given, tf.float32)
    raise DataError(
        f"the labels are {given.dtype.name} of the shape {given.shape}: expected class indices, integers of "
        "shape (batch,), or distributions, floats of shape (batch, num_classes)."
    )


def as_seed(seed: Seed) -> tf.Tensor:
    """Turns a seed into what stateless random operations take.

    Args:
        seed: A whole number, or an integer tensor ``(2,)``, which a train step can vary inside its graph.

    Returns:
        int32 ``(2,)``.
    """
    if isinstance(seed, Integral):
        number = int(seed)
        return tf.constant([number & 0x7FFFFFFF, (number >> 31) & 0x7FFFFFFF], tf.int32)
    return tf.cast(tf.reshape(seed, (2,)), tf.int32)


def fold(seed: tf.Tensor, number: Any) -> tf.Tensor:
    """Derives the seed of one draw out of many.

    Args:
        seed: int32 ``(2,)``.
        number: Which draw, an integer or an integer tensor.

    Returns:
        int32 ``(2,)``.
    """
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int32))
