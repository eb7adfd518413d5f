"""One step along the normalised gradient, in the space of embeddings."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._checks import ModelFn, Seed, check_settings
from tfapp.attacks._embeddings import climb_embeddings
from tfapp.attacks._losses import LossFn


def embedding_fgm(
    model_fn: ModelFn,
    embeddings: Any,
    labels: Any,
    *,
    mask: Any,
    epsilon: float | tf.Tensor = 0.1,
    loss: str | LossFn = "cross_entropy",
    seed: Seed = 0,
) -> tf.Tensor:
    """Moves each example's embeddings along its gradient, the fast gradient method.

    It costs one gradient at the embeddings. The points it reaches are no texts: use it to train, and judge a
    model by attacks on words.

    Args:
        model_fn: Embeddings to logits ``(batch, num_classes)``, in inference mode.
        embeddings: Floating point ``(batch, sequence, hidden)``.
        labels: Class indices ``(batch,)``, distributions ``(batch, num_classes)``, or what ``loss`` takes.
        mask: 1 or True at tokens, 0 or False at padding, ``(batch, sequence)``. Padding is neither moved nor
            counted in any norm.
        epsilon: Length of the step as a fraction of the Euclidean norm of the example's own tokens: a number,
            or a tensor, scalar or ``(batch,)``.
        loss: What to raise: ``"cross_entropy"``, ``"dlr"``, ``"margin"``, or a function of logits and labels
            that answers one number for each example.
        seed: Taken because every attack takes one; nothing is random here.

    Returns:
        Adversarial embeddings of the shape and dtype of ``embeddings``.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        DataError: When embeddings, labels or mask cannot be used.

    Reference:
        Miyato et al. 2017, Adversarial training methods for semi-supervised text classification,
        arXiv:1605.07725.
    """
    check_settings(epsilon=epsilon)
    return climb_embeddings(
        model_fn,
        embeddings,
        labels,
        mask=mask,
        epsilon=epsilon,
        step_size=epsilon,
        num_steps=1,
        random_start=False,
        loss=loss,
        seed=seed,
    )
