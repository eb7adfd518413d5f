"""The weights of the packaged image networks, brought into graphs of stock Keras layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfapp.errors import WeightsError
from tfapp.models.image_networks import RESNET50_STAGES
from tfapp.models.image_preprocessing import take_red_first
from tfapp.models.onnx_file import Convolution, read_onnx_convolutions

Tensors = Mapping[str, npt.NDArray[Any]]
_SPLIT = (0.35, 0.65)
_STEM = "conv1"
_BEHIND_STEM = ("conv2_block1_0", "conv2_block1_1")


def assign_torch_tensors(network: keras.Model, tensors: Tensors) -> None:
    """Gives a network the weights that torchvision, or timm under the same names, stores for it.

    Args:
        network: From `mobilenet_v2`, or from `resnet50` in torch's layout.
        tensors: Arrays by torch's names; those of a classifier are left out.

    Raises:
        WeightsError: If a tensor is missing, left over, or of another shape.
    """
    units = _MOBILE_UNITS if network.name == "mobilenet_v2" else _residual_units()
    used = set()

    def take(name: str) -> npt.NDArray[Any]:
        used.add(name)
        if name not in tensors:
            raise WeightsError(f"these are no weights of {network.name}: there is no tensor {name!r}.")
        return tensors[name]

    for convolution, norm, torch_convolution, torch_norm in units:
        kernel = take(f"{torch_convolution}.weight")
        layer = network.get_layer(convolution)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        _assign(
            layer.kernel, kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)), torch_convolution
        )
        layer = network.get_layer(norm)
        for ours, theirs in _NORM.items():
            _assign(getattr(layer, ours), take(f"{torch_norm}.{theirs}"), f"{torch_norm}.{theirs}")
    counters = {f"{unit[3]}.num_batches_tracked" for unit in units}
    heads = {name for name in tensors if name.startswith(("classifier.", "fc."))}
    if left := sorted(set(tensors) - used - counters - heads):
        raise WeightsError(f"{network.name} has no place for the tensor {left[0]!r} ({len(left)} left over).")


_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _mobile_units() -> list[tuple[str, str, str, str]]:
    """Names of a convolution and its normalisation here, and of the same two in torchvision."""
    units = [("Conv1", "bn_Conv1", "features.0.0", "features.0.1")]
    for block in range(17):
        here, there = ("expanded_conv" if block == 0 else f"block_{block}"), f"features.{block + 1}.conv"
        parts = ["depthwise"] if block == 0 else ["expand", "depthwise"]
        for number, part in enumerate(parts):
            units.append(
                (f"{here}_{part}", f"{here}_{part}_BN", f"{there}.{number}.0", f"{there}.{number}.1")
            )
        last = len(parts)
        units.append((f"{here}_project", f"{here}_project_BN", f"{there}.{last}", f"{there}.{last + 1}"))
    return [*units, ("Conv_1", "Conv_1_bn", "features.18.0", "features.18.1")]


_MOBILE_UNITS = _mobile_units()


def _residual_units() -> list[tuple[str, str, str, str]]:
    units = [("conv1_conv", "conv1_bn", "conv1", "bn1")]
    for stage, blocks in enumerate(RESNET50_STAGES, start=1):
        for block in range(blocks):
            here, there = f"conv{stage + 1}_block{block + 1}", f"layer{stage}.{block}"
            for part in (1, 2, 3):
                units.append(
                    (f"{here}_{part}_conv", f"{here}_{part}_bn", f"{there}.conv{part}", f"{there}.bn{part}")
                )
            if block == 0:
                units.append(
                    (f"{here}_0_conv", f"{here}_0_bn", f"{there}.downsample.0", f"{there}.downsample.1")
                )
    return units


def _assign(variable: Any, value: npt.NDArray[Any], name: str) -> None:
    if tuple(variable.shape) != value.shape:
        raise WeightsError(f"{name} has the shape {value.shape} where {tuple(variable.shape)} is needed.")
    variable.assign(value)


def assign_open_nsfw(network: keras.Model, path: Path, *, widen: bool, seed: int = 0) -> None:
    """Gives a ResNet50 the weights of Yahoo's half-width open-nsfw network.

    Widened, every channel behind the first convolution stands twice, and the weights on its two copies are
    split in shares that differ from weight to weight. So the wide network computes what the narrow one does,
    and its copies get different gradients as soon as it is trained.

    Args:
        network: From `resnet50` in Caffe's layout: of full width to widen, else of half the width.
        path: The packaged ``open_nsfw.onnx``.
        widen: Whether every channel is doubled.
        seed: Decides the shares.

    Raises:
        WeightsError: If the file is damaged or holds another network.

    Reference:
        Mahadeokar and Pesavento 2016, Open Sourcing a Deep Learning Solution for Detecting NSFW Images;
        Chen et al. 2015, Net2Net, arXiv:1511.05641 (widening that preserves the function).
    """
    found = read_onnx_convolutions(path)
    names = _open_nsfw_order()
    if len(found) != len(names):
        raise WeightsError(f"{path} holds {len(found)} convolutions where {len(names)} are needed.")
    generator = np.random.default_rng(seed)
    for name, convolution in zip(names, found, strict=True):
        kernel, steps = convolution.kernel, _affine(convolution)
        if widen and name != _STEM:
            kernel = _twice(kernel)
            if name not in _BEHIND_STEM:
                share = generator.uniform(*_SPLIT, kernel.shape[2:]).astype(np.float32)
                kernel = np.concatenate([kernel * share, kernel * (1 - share)], axis=2)
            steps = {part: _twice(values) for part, values in steps.items()}
        layer, norm = network.get_layer(f"{name}_conv"), network.get_layer(f"{name}_bn")
        _assign(layer.kernel, kernel, name)
        _assign(layer.bias, steps["bias"], name)
        for part in ("moving_mean", "gamma", "beta"):
            _assign(getattr(norm, part), steps[part], name)
        # The file keeps gamma / sqrt(variance + epsilon) as one number, which becomes gamma.
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, 1.0 - norm.epsilon))
    take_red_first(network.get_layer(f"{_STEM}_conv"))


def _twice(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([values, values], axis=-1)


def _affine(convolution: Convolution) -> dict[str, npt.NDArray[Any]]:
    if [operator for operator, _ in convolution.steps] != ["Add", "Sub", "Mul", "Add"]:
        raise WeightsError("a convolution is not followed by its bias and a batch normalisation.")
    parts = ("bias", "moving_mean", "gamma", "beta")
    return {part: values for part, (_, values) in zip(parts, convolution.steps, strict=True)}


def _open_nsfw_order() -> list[str]:
    """The units in the file's order, in which a shortcut stands before its block's last convolution."""
    order = [_STEM]
    for stage, blocks in enumerate(RESNET50_STAGES, start=2):
        for block in range(1, blocks + 1):
            parts = (1, 2, 0, 3) if block == 1 else (1, 2, 3)
            order += [f"conv{stage}_block{block}_{part}" for part in parts]
    return order
