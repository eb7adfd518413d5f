"""Projected ascent with momentum, whose step size adapts to the progress that it makes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ascent import Ascent
from tfapp.attacks._checks import ModelFn, Seed, as_bounds, check_settings
from tfapp.attacks._examples import FEWEST_CLASSES, loss_for, make_examples
from tfapp.attacks.apgd_t import apgd_t
from tfapp.errors import ConfigError, nearest

LOSSES = ("cross_entropy", "dlr", "dlr_targeted")


def apgd(
    model_fn: ModelFn,
    images: Any,
    labels: Any,
    *,
    epsilon: float | tf.Tensor = 8 / 255,
    norm: str = "linf",
    bounds: tuple[float, float] = (0.0, 255.0),
    num_steps: int = 100,
    num_restarts: int = 1,
    loss: str = "cross_entropy",
    num_targets: int = 9,
    seed: Seed = 0,
    batch_size: int = 128,
) -> tf.Tensor:
    """Climbs a loss without a step size to choose, the Auto-PGD attack.

    The step starts at twice ``epsilon`` and is halved, from the best point so far, where the loss has not
    risen often enough. An example is left alone at its first misclassified point. A restart costs
    ``num_steps + 1`` gradients for each example that holds out. It is an attack to judge with: to train,
    `fgsm` and `pgd` do as well for a tenth of the time.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.
        images: Floating point ``(batch, ...)`` within ``bounds``.
        labels: Class indices ``(batch,)``; of distributions ``(batch, num_classes)`` the likeliest class.
        epsilon: Largest change, as a fraction of the range of ``bounds``: a number, or a scalar tensor.
        norm: ``"linf"`` or ``"l2"``.
        bounds: Lowest and highest value of a pixel.
        num_steps: Steps of a restart.
        num_restarts: Random starts; the second and later ones only for examples that still stand.
        loss: ``"cross_entropy"``, ``"dlr"`` or ``"dlr_targeted"``, which is `apgd_t`. With fewer than three
            classes, four if targeted, cross-entropy takes the place of DLR, which a logged message says.
        num_targets: Classes to aim at under ``"dlr_targeted"``.
        seed: Of the random starts: a whole number, or an int32 tensor ``(2,)``.
        batch_size: How many images are attacked at a time when called eagerly.

    Returns:
        Images of the shape and dtype of ``images``: misclassified ones where they were found, else those of
        the highest loss. Images that the model gets wrong as they are come back unchanged.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When images or labels cannot be used.

    Reference:
        Croce and Hein 2020, Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks, arXiv:2003.01690.
    """
    if loss not in LOSSES:
        raise ConfigError(f"unknown loss {loss!r}; {nearest(str(loss), LOSSES)}")
    if loss == "dlr_targeted":
        return apgd_t(
            model_fn,
            images,
            labels,
            epsilon=epsilon,
            norm=norm,
            bounds=bounds,
            num_steps=num_steps,
            num_restarts=num_restarts,
            num_targets=num_targets,
            seed=seed,
            batch_size=batch_size,
        )
    check_settings(
        epsilon=epsilon,
        norm=norm,
        num_steps=num_steps,
        num_restarts=num_restarts,
        batch_size=batch_size,
    )
    bounds = as_bounds(bounds)
    examples = make_examples(
        model_fn, images, labels, epsilon=epsilon, bounds=bounds, seed=seed, batch_size=batch_size
    )
    search = Ascent(norm, bounds, num_steps, loss_for(loss, examples.num_classes, FEWEST_CLASSES["dlr"]))
    return examples.attacked_by([(search, {})] * num_restarts, batch_size=batch_size)
