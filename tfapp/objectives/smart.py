"""SMART's regulariser: answers that stay the same, both ways, around each example."""

from __future__ import annotations

from tfapp.objectives._divergence import symmetric_divergence
from tfapp.objectives._smoothness import Smoothness


class Smart(Smoothness):
    """Minimises ``L(clean) + weight * symmetric divergence`` between clean and perturbed answers.

    It is the smoothness-inducing part of SMART, in the Euclidean norm; its proximal steps are not. The
    authors propose it for fine-tuning, which overfits small training sets. Not where time counts: a step
    costs more than that of ``"fgm"``.

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
