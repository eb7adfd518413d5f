"""Virtual adversarial training: answers that stay the same in the direction that changes them most."""

from __future__ import annotations

import tensorflow as tf

from tfapp.objectives._divergence import divergence
from tfapp.objectives._perturbation import EMBEDDING_EPSILON
from tfapp.objectives._smoothness import Smoothness


class Vat(Smoothness):
    """Minimises ``L(clean) + weight * KL(clean || perturbed)``.

    The direction is found by power iteration: the gradient of the divergence at a small random perturbation
    points along it. Labels have no part in it. Use ``"smart"`` where few steps must do: it starts from the
    same place and looks at both divergences.

    Args:
        epsilon: Length of the perturbation as a share of the example's norm, 0 or more.
        weight: What the divergence counts, 0 or more.
        num_steps: Power iterations, 1 or more.
        start: Length at which the gradient is taken, as a share of ``epsilon``, more than 0 up to 1.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Miyato et al. 2018, Virtual Adversarial Training, arXiv:1704.03976.
    """

    name = "vat"
    divergence = staticmethod(divergence)

    def __init__(
        self,
        epsilon: float = EMBEDDING_EPSILON,
        weight: float = 1.0,
        num_steps: int = 1,
        start: float = 0.1,
    ) -> None:
        super().__init__(epsilon, weight, num_steps, start)

    def _moved(self, perturbation: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Power iteration keeps the direction only."""
        return step
