"""FGM above blocks that are passed only once: a cheaper adversarial step."""

from __future__ import annotations

from typing import Any

from tfapp.objectives._passes import Entrance
from tfapp.objectives._perturbation import EMBEDDING_EPSILON, check_count
from tfapp.objectives._step import StepResult, TrainableModel
from tfapp.objectives.fgm import Fgm


class LatentFgm(Fgm):
    """FGM on the hidden states that enter the top blocks.

    What lies below is computed once, forward and backward, and gets the sum of both passes' gradients; so the
    adversarial pass costs no more than the top blocks do. Not where a whole adversarial pass can be afforded:
    what lies below the perturbation is not trained against any. In phases that train no more than the top
    blocks it is `Fgm`.

    Args:
        epsilon: Length of the step as a share of the norm of the hidden states, 0 or more.
        adversarial_weight: Share of the adversarial loss, from 0 to 1.
        top_blocks: How many blocks are above the perturbation, 1 or more.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        The objective is `Fgm`'s. Adversarial training on hidden layers: Kumari et al. 2019, Harnessing the
        Vulnerability of Latent Layers in Adversarially Trained Models, arXiv:1905.05186.
    """

    name = "latent_fgm"

    def __init__(
        self,
        epsilon: float = EMBEDDING_EPSILON,
        adversarial_weight: float = 0.5,
        top_blocks: int = 1,
    ) -> None:
        super().__init__(epsilon, adversarial_weight)
        self.top_blocks = check_count("top_blocks", top_blocks)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        return self._step(model, Entrance(model, inputs, above=True), labels, sample_weight)
