"""An attack that a user chooses to train with: one of `ATTACKS` by its name, or one of their own."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from tfapp.attacks import ATTACKS, Attack, make_attack
from tfapp.errors import ConfigError
from tfapp.objectives._step import Perturbable
from tfapp.objectives._threat import NORMS, Threat, as_tokens, radius_at


class ChosenAttack:
    """Looks for a perturbation with an attack of the user's choice, with the model in inference mode.

    ``bounds`` of pixels and the ``mask`` of tokens are given to an attack whose signature has them and that
    has none bound; features without a mask are then one token each.

    Args:
        attack: A key of `tfapp.attacks.ATTACKS`, or a function that is called as
            ``attack(model_fn, values, labels, seed=seed)``.
        epsilon: As for `Threat`; like the other settings for an attack given by name.
        norm: As for `Threat`.
        num_steps: As for `Threat`; the attack's own default when None.
        step_size: As for `Threat`.
        random_start: Whether the first step begins at a random place, where the attack has the choice.

    Raises:
        ConfigError: When the attack is unknown or cannot be called, lacks a setting that is given, or is a
            function, beside which settings are of no effect.
    """

    def __init__(
        self,
        attack: str | Attack,
        epsilon: float | None,
        norm: str,
        num_steps: int | None,
        step_size: float | None,
        random_start: bool,
    ) -> None:
        checked = Threat(epsilon, norm, num_steps, step_size, random_start)
        changed = {
            "epsilon": checked.epsilon,
            "norm": None if norm == NORMS[0] else norm,
            "num_steps": None if num_steps is None else checked.num_steps,
            "step_size": checked.step_size,
            "random_start": None if random_start else False,
        }
        given: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
        self.by_name = isinstance(attack, str)
        self.epsilon = checked.epsilon
        if not isinstance(attack, str):
            _check_own(attack, given)
            self.attack = attack
            return
        make_attack(attack, **given)  # refuses what the attack does not take
        if random_start and "random_start" in inspect.signature(ATTACKS[attack]).parameters:
            given["random_start"] = True
        given.pop("epsilon", None)
        self.attack = make_attack(attack, **given)

    def find(self, place: Perturbable, targets: Any, *, seed: tf.Tensor) -> tf.Tensor:
        """Finds perturbed values.

        Args:
            place: What is perturbed.
            targets: Labels.
            seed: int32 ``(2,)``.

        Returns:
            Shaped like the values of the place; no gradient flows through it.

        Raises:
            ConfigError: When the attack is for pixels and the place has none, or the other way round.
        """
        values = tf.stop_gradient(place.values)
        given: dict[str, Any] = {"seed": seed}
        if self.by_name:
            given["epsilon"] = radius_at(place, self.epsilon)
        taken = _open_parameters(self.attack)
        if "bounds" in taken and place.bounds is not None:
            given["bounds"] = place.bounds
        elif "bounds" in taken and taken["bounds"].default is not None:
            raise ConfigError(
                f"the attack {self._name!r} is for pixels, and this phase perturbs embeddings or features: "
                "choose 'embedding_pgd' or 'embedding_fgm', or bind the attack's bounds."
            )

        def model_fn(points: tf.Tensor) -> tf.Tensor:
            return place.logits(points, training=False)

        needs_mask = "mask" in taken and taken["mask"].default is inspect.Parameter.empty
        if not needs_mask and (place.mask is None or "mask" not in taken):
            return tf.stop_gradient(self.attack(model_fn, values, targets, **given))
        if place.bounds is not None:
            raise ConfigError(
                f"the attack {self._name!r} is for embeddings, and this phase perturbs pixels: choose one on "
                "images, such as 'pgd'."
            )
        tokens, mask, shape = as_tokens(place)
        found = self.attack(
            lambda points: model_fn(tf.reshape(points, shape)), tokens, targets, mask=mask, **given
        )
        return tf.stop_gradient(tf.reshape(found, shape))

    @property
    def _name(self) -> str:
        function = getattr(self.attack, "func", self.attack)
        return getattr(function, "__name__", type(function).__name__)


def _check_own(attack: Any, given: dict[str, Any]) -> None:
    """Refuses what is no attack, and settings that an attack of one's own would not get."""
    if not callable(attack):
        raise ConfigError(
            f"attack = {attack!r}: it must be the name of an attack, such as 'apgd', or a function "
            "attack(model_fn, values, labels, *, seed)."
        )
    for name, value in given.items():
        raise ConfigError(
            f"{name} = {value!r} is of no effect beside an attack of one's own: bind it, as in "
            f"functools.partial(attack, {name}={value!r}), or give the attack by its name."
        )


def _open_parameters(attack: Attack) -> dict[str, inspect.Parameter]:
    """The parameters of an attack that nothing is bound to."""
    try:
        parameters = inspect.signature(attack).parameters
    except (TypeError, ValueError):
        return {}
    bound = getattr(attack, "keywords", {})
    return {name: parameter for name, parameter in parameters.items() if name not in bound}
