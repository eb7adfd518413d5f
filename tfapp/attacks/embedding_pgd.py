"""Several projected steps along the normalised gradient, in the space of embeddings."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.attacks._ball import as_number
from tfapp.attacks._checks import ModelFn, Seed, as_seed, check_settings
from tfapp.attacks._compiled import repeat, run_compiled
from tfapp.attacks._embeddings import as_embeddings, embedding_ball, token_norms
from tfapp.attacks._losses import LossFn, loss_and_gradient, loss_labels, make_loss


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
        epsilon: Radius of the ball as a fraction of the Euclidean norm of the example's own tokens.
        num_steps: Steps.
        step_size: Length of a step in the unit of ``epsilon``; the default is ``1.5 * epsilon / num_steps``.
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
    loss_fn = make_loss(loss)
    targets = loss_labels(loss, labels)
    values, tokens = as_embeddings(embeddings, mask)

    def climb(
        model_fn: ModelFn,
        values: tf.Tensor,
        tokens: tf.Tensor,
        labels: Any,
        share: tf.Tensor,
        size: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        ball = embedding_ball(values, tokens, share)
        length = size * token_norms(values, tokens)

        def ascend(points: tf.Tensor) -> tf.Tensor:
            _, gradient, _ = loss_and_gradient(model_fn, loss_fn, points, labels, ball.dtype)
            return ball.ascend(points, gradient, length)

        start = ball.random(seed) if random_start else ball.clean
        return ball.inputs(repeat(ascend, start, num_steps))

    key = ("embedding_pgd", num_steps, random_start, loss)
    size = 1.5 * epsilon / num_steps if step_size is None else step_size
    numbers = (as_number(value, values.dtype) for value in (epsilon, size))
    found = run_compiled(key, climb, model_fn, values, tokens, targets, *numbers, as_seed(seed))
    return tf.stop_gradient(found)
