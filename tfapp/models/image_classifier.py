"""The image classifier: a functional Keras model that carries its decoder and can be split in two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from tfapp.data.image_decoding import MAX_PIXELS, ImageDecoder
from tfapp.errors import ConfigError, WeightsError
from tfapp.models.classifier import Classifier, Cut
from tfapp.models.image_backbones import check_output, on_pixels
from tfapp.models.image_blocks import graph_nodes, image_blocks, normalised_convolutions
from tfapp.models.image_presets import DEFAULT_IMAGE_SIZE, checked_size, load_image_backbone

_MAP_RANK = 4


@keras.saving.register_keras_serializable("tfapp")
class ImageClassifier(Classifier):
    """An image network with a classification head, from raw pixels to logits.

    Batch normalisation stays in inference mode in every phase, unless ``train_batch_norm`` says otherwise:
    its means and variances were estimated on the many images of pretraining, and the small batches of
    fine-tuning would replace them by worse ones, while the layers above are trained on features that look
    unlike those of inference. Biases of convolutions whose output only batch normalisation reads are its own
    shift in another place and stay too. Everything else can be trained; phases decide what is.

    Args:
        backbone: Functional network from ``pixels``, raw RGB ``(batch, height, width, 3)`` from 0 to 255, to
            features ``(batch, height, width, channels)``, which are averaged, or ``(batch, channels)``.
        classes: Names of the classes, in the order of the logits; 2 or more, all different.
        preprocessor: Decoder that makes the pixels from encoded images.
        dropout_rate: Share of features dropped in training, from 0 up to but not including 1.
        train_batch_norm: Whether batch normalisation is trained, and uses the statistics of each batch.
        preset: Name of the preset that the backbone comes from; empty for a backbone made by hand.
        temperature: What the logits are divided by before the softmax; more than 0.
        seed: Seed of the head's initial weights.
        name: Name of the Keras model.

    Raises:
        ConfigError: If the classes, the dropout rate or the temperature cannot be used.
        WeightsError: If the backbone is no image network, or takes pixels of another size.

    Reference:
        Keras's guide to transfer learning, on ``BatchNormalization`` and ``trainable``.
    """

    read_preprocessor = staticmethod(ImageDecoder.from_config)

    def __init__(
        self,
        backbone: keras.Model,
        *,
        classes: Sequence[str],
        preprocessor: ImageDecoder,
        dropout_rate: float = 0.1,
        train_batch_norm: bool = False,
        preset: str = "",
        temperature: float = 1.0,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if not _takes_pixels(backbone, preprocessor.image_size):
            backbone = on_pixels(backbone, preprocessor.image_size)
        check_output(backbone)
        backbone.trainable = True
        if not train_batch_norm:
            _freeze_normalisation(backbone)
        features = backbone.outputs[0]
        if len(features.shape) == _MAP_RANK:
            features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pool")(features)
        super().__init__(
            backbone=backbone,
            inputs={"pixels": backbone.inputs[0]},
            features=features,
            blocks=image_blocks(backbone),
            classes=classes,
            preprocessor=preprocessor,
            settings={"train_batch_norm": train_batch_norm},
            dropout_rate=dropout_rate,
            preset=preset,
            temperature=temperature,
            seed=seed,
            name=name,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        height, width = self.preprocessor.image_size
        return int(height), int(width)

    @property
    def train_batch_norm(self) -> bool:
        """Whether batch normalisation is trained, and uses the statistics of each batch."""
        return bool(self.settings["train_batch_norm"])

    def encode_splits(self, splits: Mapping[str, Any], max_length: int | None) -> tuple[dict[str, Any], None]:
        """Gives what the decoder makes rows of, for each split; images have no lengths to report."""
        if max_length is not None:
            raise ConfigError(
                f"max_length = {max_length}: images have none; image_size is set when building."
            )
        encode = self.preprocessor.encode
        return {
            name: encode(split.features, digests=getattr(split, "digests", None))
            for name, split in splits.items()
        }, None

    def cut(self, top: int) -> Cut:
        """Cuts below the top blocks: one map of features crosses the cut.

        Args:
            top: How many blocks are above the cut, from 1 up to ``num_blocks``.

        Returns:
            The cut, with ``hidden`` ``(batch, height, width, channels)``.
        """
        below = self.blocks[-top].enters
        hidden = keras.Input(below.shape[1:], dtype=below.dtype, name="hidden")
        features = keras.Function([below], [self.features]).call([hidden])[0]
        return Cut({"hidden": below}, {"hidden": hidden}, features)


def _freeze_normalisation(backbone: keras.Model) -> None:
    for layer in backbone._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    nodes = graph_nodes(backbone.inputs, backbone.outputs[0])
    for convolution, _ in normalised_convolutions(nodes, backbone.outputs[0]):
        if convolution.operation.use_bias:
            convolution.operation.bias.trainable = False


def _takes_pixels(backbone: keras.Model, image_size: tuple[int, int]) -> bool:
    inputs = backbone.inputs
    expected = (None, *image_size, 3)
    return len(inputs) == 1 and inputs[0].name == "pixels" and tuple(inputs[0].shape) == expected


def build_image_classifier(
    backbone: str | keras.Model,
    *,
    classes: Sequence[str],
    image_size: int | tuple[int, int] | None = None,
    dropout_rate: float = 0.1,
    aspect: Literal["stretch", "crop", "pad"] = "stretch",
    max_pixels: int = MAX_PIXELS,
    train_batch_norm: bool = False,
    weights: str | Path | None = "pretrained",
    dtype: str | None = None,
    allow_unsafe: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> ImageClassifier:
    """Builds an uncompiled image classifier, from raw pixels to logits.

    Args:
        backbone: What `load_image_backbone` takes, such as ``"mobilenet-v2"`` or ``"resnet50"``, or a
            functional network that takes raw pixels, without a classifier.
        classes: Names of the classes, in the order of the logits; 2 or more, all different.
        image_size: Height and width to which images are brought, or one number for both; 32 or more for a
            network given by name, 224 when None, or what the network was made for.
        dropout_rate: Share of features dropped in training, from 0 up to but not including 1.
        aspect: How an image of another shape is brought to that size: ``"stretch"``, ``"crop"`` its centre,
            or ``"pad"`` with black.
        max_pixels: Most pixels of an image; larger ones are refused before they are decoded.
        train_batch_norm: Whether batch normalisation is trained too; see `ImageClassifier` for why not.
        weights: ``"pretrained"``, None for random ones, or a file of weights; see `load_image_backbone`.
        dtype: Keras dtype policy of a backbone given by name, such as ``"mixed_bfloat16"``.
        allow_unsafe: Load Keras files with Lambda layers: code from the file then runs on this machine.
        seed: Seed of the head's initial weights, and of random weights.
        name: Name of the Keras model.

    Returns:
        A classifier whose head is new and whose backbone has its pretrained weights.

    Raises:
        ConfigError: If an argument cannot be used, or they do not fit each other.
        WeightsError: If the backbone cannot be loaded or is no image network.
        AssetError: If packaged weights cannot be fetched.
    """
    preset = ""
    if isinstance(backbone, str):
        loaded = load_image_backbone(
            backbone,
            image_size=image_size,
            weights=weights,
            dtype=dtype,
            allow_unsafe=allow_unsafe,
            seed=seed,
        )
        network, size, preset = loaded.backbone, loaded.image_size, loaded.preset
    else:
        if dtype is not None or weights != "pretrained":
            raise ConfigError("dtype and weights go with a backbone's name; build the network with them.")
        network, size = backbone, _size_of(backbone, image_size)
    return ImageClassifier(
        network,
        classes=classes,
        preprocessor=ImageDecoder(size, aspect=aspect, max_pixels=max_pixels),
        dropout_rate=dropout_rate,
        train_batch_norm=train_batch_norm,
        preset=preset,
        seed=seed,
        name=name,
    )


def _size_of(backbone: keras.Model, image_size: int | tuple[int, int] | None) -> tuple[int, int]:
    """The size of an image for a network given as an object."""
    if (size := checked_size(image_size, smallest=1)) is not None:
        return size
    inputs = getattr(backbone, "inputs", None)
    if not inputs:
        raise WeightsError(f"the network {backbone.name!r} is not functional: it has no inputs.")
    height, width = tuple(inputs[0].shape[1:3]) if len(inputs[0].shape) == _MAP_RANK else (None, None)
    return height or DEFAULT_IMAGE_SIZE, width or DEFAULT_IMAGE_SIZE
