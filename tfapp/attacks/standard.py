"""The ensemble of AutoAttack: four attacks in order, each on the examples that still stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import per_example
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, check_settings, check_sides
from tfapp.attacks._examples import batched_logits, make_examples
from tfapp.attacks._losses import is_wrong
from tfapp.attacks.apgd import apgd
from tfapp.attacks.apgd_t import apgd_t
from tfapp.attacks.fab import fab
from tfapp.attacks.square import square


def standard_attacks(
    norm: str,
    num_classes: int,
    *,
    num_steps: int = 100,
    num_targets: int = 9,
    num_queries: int = 5000,
) -> tuple[tuple[str, Callable[..., tf.Tensor]], ...]:
    """Gives the attacks of `standard` in their order, with their settings bound.

    Args:
        norm: ``"linf"`` or ``"l2"``.
        num_classes: How many classes the model knows.
        num_steps: Of the attacks that take gradients.
        num_targets: Classes to aim at, at most all wrong ones.
        num_queries: Of the square attack.

    Returns:
        Names and attacks, to be called with a model, images, labels, ``epsilon``, ``bounds`` and ``seed``.

    Raises:
        ConfigError: When a setting is unknown or out of range.
    """
    check_settings(
        epsilon=0.0,
        norm=norm,
        num_classes=num_classes,
        num_steps=num_steps,
        num_targets=num_targets,
        num_queries=num_queries,
    )
    targets = max(min(num_targets, num_classes - 1), 1)
    return (
        ("apgd", partial(apgd, norm=norm, num_steps=num_steps)),
        ("apgd_t", partial(apgd_t, norm=norm, num_steps=num_steps, num_targets=targets)),
        ("fab", partial(fab, norm=norm, num_steps=num_steps, num_targets=targets)),
        ("square", partial(square, norm=norm, num_queries=num_queries)),
    )


def standard(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_steps: int = 100,
    num_targets: int = 9,
    num_queries: int = 5000,
    seed: Seed = 0,
    batch_size: int = 128,
) -> tf.Tensor:
    """Runs AutoAttack's standard ensemble: APGD on cross-entropy, APGD-T, FAB-T and Square.

    The attack to report robust accuracy with. It takes minutes to hours: thousands of passes for each example
    that stands to the end. It judges deterministic models; of one that answers at random, or adapts to its
    inputs, its figures are too good. With fewer than four classes cross-entropy takes the place of DLR in
    APGD-T, which a logged message says.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, height, width, channels)`` within ``bounds``.
        labels: Class indices ``(batch,)``; of distributions ``(batch, num_classes)`` the likeliest class.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a scalar tensor.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_steps: Of the attacks that take gradients. Fewer steps or queries than the defaults are for quick
            looks: the figures are no longer AutoAttack's.
        num_targets: Classes that APGD-T and FAB-T aim at, at most all wrong ones.
        num_queries: Of the square attack.
        seed: Of all that is random: a whole number, or an int32 tensor ``(2,)``.
        batch_size: How many images are attacked at a time when called eagerly.

    Returns:
        Images of the shape and dtype of ``images``: misclassified ones where any attack found one, the others
        unchanged.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Croce and Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks, arXiv:2003.01690.
    """
    check_settings(epsilon=epsilon, norm=norm, batch_size=batch_size)
    bounds = as_bounds(bounds)
    check_sides(images, "standard, which ends with square,")
    examples = make_examples(
        model_fn, images, labels, epsilon=epsilon, bounds=bounds, seed=seed, batch_size=batch_size
    )
    model, truth, wrong = examples.model_fn, examples.given["labels"], examples.given["done"]
    answer, pixels = examples.given["images"], examples.given["images"]
    attacks = standard_attacks(
        norm,
        examples.num_classes,
        num_steps=num_steps,
        num_targets=num_targets,
        num_queries=num_queries,
    )
    given = {"epsilon": epsilon, "bounds": bounds, "seed": seed, "batch_size": batch_size}
    for _, attack in attacks:
        if tf.executing_eagerly():
            rows = tf.where(~wrong)
            if not len(rows):
                break
            found = attack(model, tf.gather_nd(pixels, rows), tf.gather_nd(truth, rows), **given)
            found = tf.tensor_scatter_nd_update(pixels, rows, found)
        else:
            found = attack(model, pixels, truth, **given)
        # Asked anew, so that no attack is believed that only thinks it succeeded.
        broken = ~wrong & is_wrong(batched_logits(model, found, batch_size), truth)
        answer = tf.where(per_example(broken, answer), found, answer)
        wrong |= broken
    return answer
