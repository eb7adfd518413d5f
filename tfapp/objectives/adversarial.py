"""Adversarial training: the loss where an attack leads."""

from __future__ import annotations

from typing import Any, Literal

from tfapp.attacks import Attack
from tfapp.errors import ConfigError, nearest
from tfapp.objectives._chosen_attack import ChosenAttack
from tfapp.objectives._passes import Entrance, supervised
from tfapp.objectives._perturbation import check_number
from tfapp.objectives._step import StepResult, TrainableModel
from tfapp.objectives._threat import Threat

STATISTICS = ("clean", "adversarial")


class Adversarial:
    """Minimises ``(1 - w) * L(clean) + w * L(attacked)``.

    The attack sees the model in inference mode, and works on pixels, on token embeddings, or, in phases that
    train on a frozen backbone, on its features, which is nearly free. One step from a random start
    (``num_steps=1``) is the cheapest for images; watch it with `tfapp.training.CatastrophicOverfitting`, for
    it can suddenly fail against attacks of several steps. Not where clean accuracy matters most: ``"trades"``
    has a setting for the exchange.

    Args:
        epsilon: Radius: for pixels a share of their range, ``8/255`` when None; for embeddings and features a
            share of the example's own norm, 0.1 when None.
        norm: ``"linf"`` or ``"l2"``, of pixels; others are perturbed in their Euclidean norm.
        num_steps: Gradient steps of the attack; when None 1, which is FGSM, or what a named attack takes.
        step_size: Length of a step in the unit of ``epsilon``; chosen by the attack when None.
        random_start: Whether the attack begins at a random place within the radius, where it has the choice.
        adversarial_weight: ``w``, from 0 to 1. With 1 the accuracies in the history are those under attack.
        batch_norm: Which inputs alone the moving averages of trained batch normalisation come from:
            ``"clean"``, for which a pass is added where ``w`` is 1, or ``"adversarial"``.
        attack: Another attack instead: a key of `tfapp.attacks.ATTACKS`, which gets the settings above, such
            as ``"apgd"`` for pixels or ``"embedding_fgm"`` for embeddings and features; or one of your own,
            ``attack(model_fn, values, labels, *, seed) -> values``, beside which they are refused. ``bounds``
            of pixels and the ``mask`` of tokens are given to one whose signature has them.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083;
        Wong et al. 2020, Fast is better than free, arXiv:2001.03994 (one step from a random start).
    """

    name = "adversarial"
    perturbs = True

    def __init__(
        self,
        epsilon: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
        num_steps: int | None = None,
        step_size: float | None = None,
        random_start: bool = True,
        adversarial_weight: float = 1.0,
        batch_norm: Literal["clean", "adversarial"] = "clean",
        attack: str | Attack | None = None,
    ) -> None:
        settings = epsilon, norm, num_steps, step_size, random_start
        self.threat = Threat(*settings) if attack is None else ChosenAttack(attack, *settings)
        self.adversarial_weight = check_number("adversarial_weight", adversarial_weight, most=1.0)
        if batch_norm not in STATISTICS:
            raise ConfigError(f"unknown batch_norm {batch_norm!r}; {nearest(batch_norm, STATISTICS)}")
        self.batch_norm = batch_norm

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`."""
        entrance = Entrance(model, inputs)
        place, values, share = entrance.place, entrance.values, self.adversarial_weight
        attacked = self.threat.find(place, labels, seed=model.step_seed())
        loss_of = supervised(model, inputs, labels, sample_weight)
        if share == 1.0 and self.batch_norm == "clean" and model.trains_statistics:
            place.logits(values, training=True)
        other = entrance.run([attacked], loss_of, perturbed=[self.batch_norm == "clean"])
        if share == 1.0:
            return StepResult(model.unscaled(other.loss), other.logits[0], entrance.gradients([other], [1.0]))
        clean = entrance.run([values], loss_of, perturbed=[self.batch_norm != "clean"])
        loss = (1.0 - share) * clean.loss + share * other.loss
        gradients = entrance.gradients([clean, other], [1.0 - share, share])
        return StepResult(model.unscaled(loss), clean.logits[0], gradients)
