"""Adversarial images as an augmentation: attacked in the pipeline, or made once and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.augment import adversarial_batches
from tfapp.data.grey_levels import in_grey_levels
from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.image_rows import EncodedImages, naming_bad_images
from tfapp.data.image_store import png_file
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.progress import track
from tfapp.training.adversarial import AdversarialAugmentation

_LOG = logging.getLogger("tfapp")
_SEED_OFFSET = 7
_BATCH = 128


def attacked_batches(
    dataset: tf.data.Dataset,
    augmentation: AdversarialAugmentation,
    model: Classifier,
    *,
    seed: int,
    first_batch: int,
) -> tf.data.Dataset:
    """Attacks a share of every batch against the weights that the model has when its step is due.

    Nothing is made ahead, so that runs are repeatable and no example is older than its step. That holds on
    one replica only; see `check_one_replica`.

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


def check_one_replica() -> None:
    """Refuses to attack images in the pipeline for several replicas.

    Raises:
        ConfigError: Under a strategy with more than one.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ConfigError(
            f"augment.adversarial refresh = 'epoch' under a strategy of {replicas} replicas: batches are "
            "taken from the pipeline ahead of the steps, so they would be attacked against older weights. "
            "Train on one device, take refresh = 'never', or the objective 'adversarial', which attacks in "
            "each replica."
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

    They are kept in memory as PNG files of the decoder's size, in whole grey levels within epsilon.

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
    def attacked(indices: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.cast(rows.gather(indices)["pixels"], tf.float32)
        found = attack(model_fn, {"pixels": pixels}, classes, seed=tf.stack([seed, indices[0]]))["pixels"]
        return found, tf.cast(pixels, tf.uint8)

    replaced: dict[int, bytes] = {}
    starts = range(0, count, _BATCH)
    with naming_bad_images():
        for start in track(starts, len(starts), f"attack {count} images"):
            part = chosen[start : start + _BATCH].astype(np.int32)
            found, clean = attacked(tf.constant(part), tf.constant(labels[part]))
            changed = in_grey_levels(
                found.numpy(), clean.numpy(), epsilon=augmentation.epsilon, norm=augmentation.norm
            )
            replaced.update(zip(part.tolist(), map(png_file, changed), strict=True))
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
