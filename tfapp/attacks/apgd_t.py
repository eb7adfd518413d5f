"""APGD towards one wrong class after the other."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ascent import Ascent
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, check_settings
from tfapp.attacks._examples import FEWEST_CLASSES, loss_for, make_examples, runners_up


def apgd_t(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_steps: int = 100,
    num_restarts: int = 1,
    num_targets: int = 9,
    seed: Seed = 0,
    batch_size: int = 128,
) -> tf.Tensor:
    """Runs `apgd` on the targeted DLR loss, towards each of the likeliest wrong classes in turn.

    The strongest single attack of `standard`, and with nine targets the dearest one that takes gradients. An
    example is left alone once it is misclassified, as whatever class. With two classes there is one target,
    and this is `apgd` over again: take that one.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices ``(batch,)``; of distributions ``(batch, num_classes)`` the likeliest class.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a scalar tensor.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_steps: Steps towards each target.
        num_restarts: Random starts for each target.
        num_targets: Classes to aim at, by the clean image's logits; at most all wrong ones.
        seed: Of the random starts: a whole number, or an int32 tensor ``(2,)``.
        batch_size: How many images are attacked at a time when called eagerly.

    Returns:
        Images of the shape and dtype of ``images``: misclassified ones where they were found, else those of
        the highest loss towards the last target.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Croce and Hein 2020, arXiv:2003.01690.
    """
    check_settings(
        epsilon=epsilon,
        norm=norm,
        num_steps=num_steps,
        num_restarts=num_restarts,
        num_targets=num_targets,
        batch_size=batch_size,
    )
    bounds = as_bounds(bounds)
    examples = make_examples(
        model_fn, images, labels, epsilon=epsilon, bounds=bounds, seed=seed, batch_size=batch_size
    )
    loss = loss_for("dlr", examples.num_classes, FEWEST_CLASSES["dlr_targeted"])
    search = Ascent(norm, bounds, num_steps, loss, targeted=True)
    targets = runners_up(examples, num_targets)
    rounds = [(search, {"target": target}) for target in targets for _ in range(num_restarts)]
    return examples.attacked_by(rounds, batch_size=batch_size)
