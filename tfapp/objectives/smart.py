"""SMART's regulariser: answers that stay the same, both ways, around each example."""

from __future__ import annotations

from tfapp.objectives._divergence import symmetric_divergence
from tfapp.objectives._perturbation import EMBEDDING_EPSILON
from tfapp.objectives._smoothness import Smoothness


class Smart(Smoothness):
    """Minimises ``L(clean) + weight * symmetric divergence`` between clean and perturbed answers.

    It is the smoothness-inducing part of SMART; its proximal steps are not. For small training sets, on which
    fine-tuning overfits; on large ones FGM gives as much for less time.

    Args:
        epsilon: Length of the perturbation as a share of the example's norm, 0 or more.
        weight: What the divergence counts, 0 or more.
        num_steps: Gradient steps that look for the perturbation, 1 or more.
        start: Length of the random perturbation to begin with, as a share of ``epsilon``, more than 0 and at
            most 1.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Jiang et al. 2020, SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models,
        arXiv:1911.03437.
    """

    name = "smart"
    divergence = staticmethod(symmetric_divergence)

    def __init__(
        self,
        epsilon: float = EMBEDDING_EPSILON,
        weight: float = 1.0,
        num_steps: int = 1,
        start: float = 0.1,
    ) -> None:
        super().__init__(epsilon, weight, num_steps, start)
