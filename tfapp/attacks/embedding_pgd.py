"""Several projected steps along the normalised gradient, in the space of embeddings."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._checks import ModelFn, Seed, check_settings
from tfapp.attacks._embeddings import climb_embeddings
from tfapp.attacks._losses import LossFn


def embedding_pgd(
    model_fn: ModelFn,
    embeddings: Any,
    labels: Any,
    *,
    mask: Any,
    epsilon: float | tf.Tensor = 0.1,
    num_steps: int = 3,
    step_size: float | tf.Tensor | None = None,
    random_start: bool = True,
    loss: str | LossFn = "cross_entropy",
    seed: Seed = 0,
) -> tf.Tensor:
    """Climbs the loss in ``num_steps`` steps within a ball around each example's embeddings.

    It costs ``num_steps`` gradients at the embeddings. The points it reaches are no texts: use it to train or
    to probe smoothness, and judge a model by attacks on words.

    Args:
        model_fn: Embeddings to logits ``(batch, num_classes)``, in inference mode.
        embeddings: Floating point ``(batch, sequence, hidden)``.
        labels: Class indices ``(batch,)``, distributions ``(batch, num_classes)``, or what ``loss`` takes.
        mask: 1 or True at tokens, 0 or False at padding, ``(batch, sequence)``. Padding is neither moved nor
            counted in any norm.
        epsilon: Radius of the ball as a fraction of the Euclidean norm of the example's own tokens: a number,
            or a tensor, scalar or ``(batch,)``.
        num_steps: Steps.
        step_size: Length of a step in the unit of ``epsilon``, 0 or more, at which the points stay at their
            start; the default is ``1.5 * epsilon / num_steps``.
        random_start: Whether to start at a random point of the ball.
        loss: What to raise: ``"cross_entropy"``, ``"dlr"``, ``"margin"``, or a function of logits and labels
            that answers one number for each example.
        seed: Of the random start: a whole number, or an int32 tensor ``(2,)``.

    Returns:
        Adversarial embeddings of the shape and dtype of ``embeddings``.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When embeddings, labels or mask cannot be used.

    Reference:
        Madry et al. 2018, arXiv:1706.06083; in the space of embeddings: Zhu et al. 2020, FreeLB,
        arXiv:1909.11764.
    """
    check_settings(epsilon=epsilon, step_size=step_size, num_steps=num_steps)
    return climb_embeddings(
        model_fn,
        embeddings,
        labels,
        mask=mask,
        epsilon=epsilon,
        step_size=1.5 * epsilon / num_steps if step_size is None else step_size,
        num_steps=num_steps,
        random_start=random_start,
        loss=loss,
        seed=seed,
    )
