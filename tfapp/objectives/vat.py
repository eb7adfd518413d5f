"""Virtual adversarial training: answers that stay the same in the direction that changes them most."""

from __future__ import annotations

import tensorflow as tf

from tfapp.objectives._divergence import divergence
from tfapp.objectives._perturbation import within
from tfapp.objectives._smoothness import Ascent, Smoothness
from tfapp.objectives._step import Perturbable


def _from_fixed(logits: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    return divergence(tf.stop_gradient(logits), others)


class Vat(Smoothness):
    """Minimises ``L(clean) + weight * KL(clean || perturbed)``, the clean answers taken as constants.

    The direction is found by power iteration: the gradient of the divergence at a small perturbation, which
    is random at first, points along it. Labels have no part in it. Not against attacks that follow the
    labels, where all rows have one: ``"fgm"`` trains on the loss that they raise.

    Args:
        epsilon: Length of the perturbation as a share of the example's norm, 0 or more.
        weight: What the divergence counts, 0 or more.
        num_steps: Power iterations, 1 or more.
        start: Length at which each gradient is taken, as a share of ``epsilon``, more than 0 and at most 1.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Miyato et al. 2018, Virtual Adversarial Training, arXiv:1704.03976.
    """

    name = "vat"
    divergence = staticmethod(_from_fixed)

    def _found(self, place: Perturbable, begin: tf.Tensor, ascent: Ascent, radius: tf.Tensor) -> tf.Tensor:
        """Power iteration: every gradient is taken at the small length, and the last one is followed."""
        step = ascent(begin)
        for _ in range(1, self.num_steps):
            step = ascent(within(place, self.start * step, radius))
        return within(place, step, radius)
