"""The settings of adversarial images as an augmentation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfapp.attacks import NORMS, make_attack
from tfapp.data.augment import REFRESHES
from tfapp.data.digests import digest
from tfapp.data.pixel_budgets import check_pixel_budget
from tfapp.errors import ConfigError, WeightsError, check_known, nearest
from tfapp.training.checkpoints import read_values

_ATTACKS = ("fgsm", "pgd")
_PGD_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class AdversarialAugmentation:
    """A share of the training images is replaced by adversarial ones; labels stay.

    They are rows like all others: where batch normalisation is trained, they enter its moving averages.

    Attributes:
        attack: ``"fgsm"`` or ``"pgd"``, both from random starts.
        epsilon: Largest change of a pixel (``"linf"``) or of the image (``"l2"``), as a fraction of the range
            of grey levels.
        num_steps: Steps of PGD, 7 when None; FGSM has one.
        norm: ``"linf"`` or ``"l2"``.
        fraction: Share of the rows, 0 to 1.
        refresh: ``"epoch"`` attacks other rows in every epoch, against the weights of that very step, so that
            no features can be cached. ``"never"`` attacks a share of the rows once, before training, and
            keeps them as images, which are then augmented and cached like all others.
        model: What ``"never"`` attacks: a classifier, the path of its ``.keras`` file, or the folder of a
            release's version; None for the model in training as it stands at the start, whose head may still
            be random. Classifiers and releases must have the same classes in the same order. Of a ``.keras``
            file, or another Keras model, that is taken for granted; it must give logits.

    Raises:
        ConfigError: When a value is unknown or out of range.
    """

    attack: str = "fgsm"
    epsilon: float = 8 / 255
    num_steps: int | None = None
    norm: str = "linf"
    fraction: float = 0.5
    refresh: str = "epoch"
    model: str | Path | keras.Model | None = None

    def __post_init__(self) -> None:
        for name, choices in (("attack", _ATTACKS), ("norm", NORMS), ("refresh", REFRESHES)):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"augment.adversarial {name} = {value!r}; {nearest(str(value), choices)}")
        for name, bound in (("epsilon", math.inf), ("fraction", 1.0)):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0.0 < value <= bound:
                most = "" if bound > 1.0 else ", and at most 1"
                raise ConfigError(f"augment.adversarial {name} = {value!r}: a number more than 0{most}.")
        check_pixel_budget("augment.adversarial epsilon", self.epsilon, self.norm)
        steps = self.num_steps
        if steps is not None:
            if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
                raise ConfigError(f"augment.adversarial num_steps = {steps!r}: a whole number, 1 or more.")
            if self.attack == "fgsm":
                raise ConfigError(
                    f"augment.adversarial num_steps = {steps}: 'fgsm' has one step; leave it out, or choose "
                    "attack = 'pgd'."
                )
        if self.model is not None and self.refresh != "never":
            raise ConfigError(
                "augment.adversarial model goes with refresh = 'never': with 'epoch', what is attacked is "
                "the model in training."
            )

    def described(self) -> dict[str, Any]:
        """The settings as plain values, for keys and records."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)} | self._steps()
        if self.model is not None:
            plain["model"] = digest(*read_values(self.loaded().weights))
        return plain

    def loaded(self) -> keras.Model:
        """Gives the model that is to be attacked, read from its file where one is named.

        Raises:
            WeightsError: When it cannot be read.
        """
        if isinstance(self.model, keras.Model):
            return self.model
        path = Path(str(self.model))
        file = path / "keras" / "model.keras" if path.is_dir() else path
        try:
            return keras.saving.load_model(file, compile=False)
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(
                f"augment.adversarial model = {str(self.model)!r}: {file} is no Keras model that can be "
                f"read: {error}"
            ) from error

    def attack_fn(self) -> Callable[..., Any]:
        """Gives the attack, from ``{"pixels": images}`` to the same."""
        settings = {"epsilon": self.epsilon, "norm": self.norm, "random_start": True, **self._steps()}
        attack = make_attack(self.attack, **settings)

        def on_pixels(model_fn: Any, inputs: Mapping[str, tf.Tensor], labels: tf.Tensor, *, seed: Any) -> Any:
            return {**inputs, "pixels": attack(model_fn, inputs["pixels"], labels, seed=seed)}

        return on_pixels

    def classes(self, model: keras.Model) -> tuple[str, ...] | None:
        """Tells the classes of what is attacked.

        Args:
            model: What `loaded` gave.

        Returns:
            Their names in their order; None where nothing tells them.

        Raises:
            WeightsError: When a release's golden file, which tells them, cannot be read.
        """
        if isinstance(self.model, keras.Model):
            return getattr(model, "classes", None)
        folder = Path(str(self.model))
        if not folder.is_dir():
            return None
        file = folder / "edge" / "golden.json"
        try:
            return tuple(json.loads(file.read_text(encoding="utf-8"))["classes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"augment.adversarial model = {str(self.model)!r}: {file}, which tells the classes of a "
                "release, cannot be read; name the folder of a release's version, or a .keras file whose "
                "classes are in the order of the data."
            ) from error

    def _steps(self) -> dict[str, int]:
        return {} if self.attack == "fgsm" else {"num_steps": int(self.num_steps or _PGD_STEPS)}


def make_adversarial(
    setting: Mapping[str, Any] | AdversarialAugmentation | None,
) -> AdversarialAugmentation | None:
    """Resolves what a user asks for.

    Args:
        setting: The arguments of `AdversarialAugmentation` by name, an object of it, or None.

    Returns:
        The augmentation, or None.

    Raises:
        ConfigError: When a name is unknown or a value out of range.
    """
    if setting is None or isinstance(setting, AdversarialAugmentation):
        return setting
    if not isinstance(setting, Mapping):
        raise ConfigError(f"augment.adversarial = {setting!r}: a table of settings is needed.")
    known = [field.name for field in fields(AdversarialAugmentation)]
    check_known(setting, known, "setting of augment.adversarial")
    return AdversarialAugmentation(**setting)
