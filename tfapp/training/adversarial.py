"""Adversarial images as an augmentation: attacked in the pipeline, or made once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks import NORMS, make_attack
from tfapp.data.augment import REFRESHES, adversarial_batches
from tfapp.data.digests import digest
from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.image_rows import EncodedImages, naming_bad_images
from tfapp.errors import ConfigError, WeightsError, check_known, nearest
from tfapp.models import Classifier
from tfapp.progress import track
from tfapp.training.checkpoints import read_values

_LOG = logging.getLogger("tfapp")
_ATTACKS = ("fgsm", "pgd")
_PGD_STEPS = 7
_SEED_OFFSET = 7
_BATCH = 128


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


def attacked_batches(
    dataset: tf.data.Dataset,
    augmentation: AdversarialAugmentation,
    model: Classifier,
    *,
    seed: int,
    first_batch: int,
) -> tf.data.Dataset:
    """Attacks a share of every batch against the weights that the model has when its step is due.

    Nothing is made ahead, so that runs are repeatable and no example is older than its step.

    Args:
        dataset: Batches with ``pixels``, without end.
        augmentation: How.
        model: The model in training.
        seed: Decides rows and random starts.
        first_batch: The number of the first batch, which goes on where a stopped run ended.

    Returns:
        Such batches, with pixels as float32.
    """
    return adversarial_batches(
        dataset,
        augmentation.attack_fn(),
        _logits_of(model),
        numbers=tf.data.Dataset.counter(first_batch),
        fraction=augmentation.fraction,
        seed=seed,
    )


def frozen_images(
    encoded: EncodedImages,
    labels: npt.NDArray[np.int32],
    augmentation: AdversarialAugmentation,
    model: Classifier,
    *,
    seed: int,
) -> EncodedImages:
    """Replaces a share of the images by adversarial ones, made once.

    They are kept in memory as PNG files of the decoder's size. Changes are rounded towards the image, so that
    they stay within epsilon.

    Args:
        encoded: The images.
        labels: Their classes, int32 ``(rows,)``.
        augmentation: How; its model is attacked, or else ``model``.
        model: The model in training.
        seed: Decides rows and random starts.

    Returns:
        As many images.

    Raises:
        ConfigError: When the attacked model does not fit, or has other classes.
        WeightsError: When it cannot be read.
    """
    target = model if augmentation.model is None else _fitting(augmentation, model)
    attack, model_fn = augmentation.attack_fn(), _logits_of(target)
    count = round(augmentation.fraction * len(encoded))
    chosen = np.sort(np.random.default_rng(seed + _SEED_OFFSET).permutation(len(encoded))[:count])
    rows = encoded.decoder.make_rows(encoded)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def attacked(indices: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(rows.gather(indices)["pixels"], tf.float32)
        found = attack(model_fn, {"pixels": pixels}, classes, seed=tf.stack([seed, indices[0]]))["pixels"]
        changed = tf.cast(pixels + tf.math.sign(found - pixels) * tf.floor(tf.abs(found - pixels)), tf.uint8)
        return tf.map_fn(tf.io.encode_png, changed, fn_output_signature=tf.string)

    replaced: dict[int, bytes] = {}
    starts = range(0, count, _BATCH)
    with naming_bad_images():
        for start in track(starts, len(starts), f"attack {count} images"):
            part = chosen[start : start + _BATCH].astype(np.int32)
            files = attacked(tf.constant(part), tf.constant(labels[part]))
            replaced.update(zip(part.tolist(), files.numpy().tolist(), strict=True))
    _LOG.info("%d of %d training images replaced by adversarial ones", count, len(encoded))
    decoder = encoded.decoder
    height, width = decoder.image_size
    if height * width > decoder.max_pixels:
        decoder = ImageDecoder(decoder.image_size, aspect=decoder.aspect, max_pixels=height * width)
    digests = encoded.digests
    if digests is not None:
        digests = [
            hashlib.sha256(replaced[row]).hexdigest() if row in replaced else known
            for row, known in enumerate(digests)
        ]
    return replace(encoded, images=_Replaced(encoded, replaced), decoder=decoder, digests=digests)


class _Replaced(Sequence[bytes]):
    """Images of which some are replaced."""

    def __init__(self, encoded: EncodedImages, replaced: Mapping[int, bytes]) -> None:
        self._encoded, self._replaced = encoded, replaced

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, row: Any) -> Any:
        return self._replaced[row] if row in self._replaced else self._encoded.images[row]

    def name(self, row: int) -> str:
        """What messages call an image."""
        return self._encoded.name(row)


def _logits_of(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda pixels: tf.cast(model({"pixels": pixels}, training=False), tf.float32)


def _fitting(augmentation: AdversarialAugmentation, model: Classifier) -> keras.Model:
    """The model to attack, which must take the same images and know the same classes."""
    target = augmentation.loaded()
    inputs = target.input if isinstance(target.input, Mapping) else {}
    shape = inputs["pixels"].shape[1:] if "pixels" in inputs else None
    if shape != model.input["pixels"].shape[1:] or target.output.shape[1:] != model.output.shape[1:]:
        raise ConfigError(
            f"augment.adversarial model takes pixels of {shape} and gives {target.output.shape[1:]}: what is "
            f"trained takes {model.input['pixels'].shape[1:]} and gives {model.output.shape[1:]}."
        )
    classes = augmentation.classes(target)
    if classes is not None and tuple(classes) != tuple(model.classes):
        raise ConfigError(
            f"augment.adversarial model has the classes {list(classes)}, and what is trained has "
            f"{list(model.classes)}: the same ones in the same order are needed, or the loss of a wrong "
            "label is raised."
        )
    return target
