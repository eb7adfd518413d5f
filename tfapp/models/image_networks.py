"""MobileNetV2 and ResNet50 from stock Keras layers, with the names of keras.applications and others' padding.

keras.applications pads strided convolutions as TensorFlow does, at the bottom and the right only. Weights
that were trained with torch's or Caffe's padding give other answers there, so these graphs pad as they do.
"""

from __future__ import annotations

from typing import Literal

import keras
from keras import layers

_TORCH_EPSILON = 1e-5
_RESNET_EPSILON = 1.001e-5
# Channels, blocks and the first block's stride of MobileNetV2's stages after the first block.
_MOBILE_STAGES = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_EXPANSION = 6
RESNET50_STAGES = (3, 4, 6, 3)
"""Residual blocks of each of ResNet50's four stages."""


def mobilenet_v2(pixels: keras.KerasTensor, inputs: keras.KerasTensor) -> keras.Model:
    """Builds MobileNetV2 with torchvision's padding and batch normalisation.

    Args:
        pixels: The model's input ``(batch, height, width, 3)``.
        inputs: The pixels after preprocessing.

    Returns:
        A model with random weights and output ``(batch, height / 32, width / 32, 1280)``, whose layers have
        the names of `keras.applications.MobileNetV2`.

    Reference:
        Sandler et al. 2018, MobileNetV2, arXiv:1801.04381.
    """
    hidden = _padded(inputs, "Conv1_pad")
    hidden = layers.Conv2D(32, 3, strides=2, use_bias=False, name="Conv1")(hidden)
    hidden = layers.ReLU(6.0, name="Conv1_relu")(_mobile_norm(hidden, "bn_Conv1"))
    hidden = _inverted_residual(hidden, "expanded_conv", width=16, stride=1, expand=False)
    number = 0
    for width, blocks, stride in _MOBILE_STAGES:
        for block in range(blocks):
            number += 1
            hidden = _inverted_residual(
                hidden, f"block_{number}", width=width, stride=stride if block == 0 else 1, expand=True
            )
    hidden = layers.Conv2D(1280, 1, use_bias=False, name="Conv_1")(hidden)
    hidden = layers.ReLU(6.0, name="out_relu")(_mobile_norm(hidden, "Conv_1_bn"))
    return keras.Model(pixels, hidden, name="mobilenet_v2")


def _mobile_norm(inputs: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=_TORCH_EPSILON, momentum=0.9, name=name)(inputs)


def _padded(inputs: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ZeroPadding2D(1, name=name)(inputs)


def _inverted_residual(
    inputs: keras.KerasTensor, name: str, *, width: int, stride: int, expand: bool
) -> keras.KerasTensor:
    channels = inputs.shape[-1]
    hidden = inputs
    if expand:
        hidden = layers.Conv2D(_EXPANSION * channels, 1, use_bias=False, name=f"{name}_expand")(hidden)
        hidden = _mobile_norm(hidden, f"{name}_expand_BN")
        hidden = layers.ReLU(6.0, name=f"{name}_expand_relu")(hidden)
    if stride == 2:
        hidden = _padded(hidden, f"{name}_pad")
    padding = "same" if stride == 1 else "valid"
    hidden = layers.DepthwiseConv2D(
        3, strides=stride, padding=padding, use_bias=False, name=f"{name}_depthwise"
    )(hidden)
    hidden = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_mobile_norm(hidden, f"{name}_depthwise_BN"))
    hidden = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(hidden)
    hidden = _mobile_norm(hidden, f"{name}_project_BN")
    if stride == 1 and channels == width:
        hidden = layers.Add(name=f"{name}_add")([inputs, hidden])
    return hidden


def resnet50(
    pixels: keras.KerasTensor,
    inputs: keras.KerasTensor,
    *,
    layout: Literal["caffe", "torch"],
    width: float = 1.0,
) -> keras.Model:
    """Builds ResNet50 in the layout that weights from elsewhere were trained in.

    Args:
        pixels: The model's input ``(batch, height, width, 3)``.
        inputs: The pixels after preprocessing.
        layout: ``"caffe"`` strides in the first convolution of a block, as keras.applications does, and pads
            the first pooling at the bottom and the right; ``"torch"`` strides in the second one, pads all
            around, and has no biases.
        width: Share of the channels behind the first convolution.

    Returns:
        A model with random weights and output ``(batch, height / 32, width / 32, 2048 * width)``, whose
        layers have the names of `keras.applications.ResNet50`.

    Reference:
        He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385.
    """
    torch = layout == "torch"

    def unit(
        inputs: keras.KerasTensor, channels: int, size: int, name: str, *, stride: int = 1, relu: bool = True
    ) -> keras.KerasTensor:
        same = size > 1 and stride == 1
        if size > 1 and not same:
            inputs = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(inputs)
        hidden = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same" if same else "valid",
            use_bias=not torch,
            name=f"{name}_conv",
        )(inputs)
        epsilon = _TORCH_EPSILON if torch else _RESNET_EPSILON
        hidden = layers.BatchNormalization(epsilon=epsilon, name=f"{name}_bn")(hidden)
        return layers.Activation("relu", name=f"{name}_relu")(hidden) if relu else hidden

    hidden = unit(inputs, 64, 7, "conv1", stride=2)
    hidden = layers.ZeroPadding2D(1 if torch else ((0, 1), (0, 1)), name="pool1_pad")(hidden)
    hidden = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(hidden)
    for stage, blocks in enumerate(RESNET50_STAGES):
        narrow = round(64 * 2**stage * width)
        for block in range(blocks):
            name = f"conv{stage + 2}_block{block + 1}"
            stride = 2 if stage > 0 and block == 0 else 1
            first, second = (1, stride) if torch else (stride, 1)
            shortcut = hidden
            if block == 0:
                shortcut = unit(hidden, 4 * narrow, 1, f"{name}_0", stride=stride, relu=False)
            hidden = unit(hidden, narrow, 1, f"{name}_1", stride=first)
            hidden = unit(hidden, narrow, 3, f"{name}_2", stride=second)
            hidden = unit(hidden, 4 * narrow, 1, f"{name}_3", relu=False)
            hidden = layers.Add(name=f"{name}_add")([shortcut, hidden])
            hidden = layers.Activation("relu", name=f"{name}_out")(hidden)
    return keras.Model(pixels, hidden, name="resnet50")
