"""Backbones from a local Hugging Face folder: config.json, model.safetensors, and a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_hub

from tfapp.data.sentencepiece_files import read_tokenizer_json, with_encoder_ids
from tfapp.data.tokenizers import SentencePieceTokenizer, Tokenizer, WordPieceTokenizer
from tfapp.errors import WeightsError
from tfapp.models.weight_files import check_files, check_safetensors, read_json

_FILES = ("config.json", "model.safetensors")
_FAMILIES = {"bert": "pooler", "distilbert": "cls", "xlm-roberta": "cls"}
_SENTENCEPIECE = ("sentencepiece.model", "tokenizer.json", "sentencepiece.bpe.model")
_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python")


def load_huggingface_folder(
    folder: Path,
    *,
    dtype: str | None = None,
    tokenizer: Tokenizer | None = None,
    load_weights: bool = True,
) -> tuple[keras.Model, Tokenizer, str]:
    """Loads a BERT, DistilBERT or XLM-R encoder from the files of a Hugging Face repository.

    keras-hub computes GELU by its tanh approximation, so hidden states differ from PyTorch's by about 1e-3;
    XLM-R's it computes exactly.

    Args:
        folder: Folder with ``config.json``, ``model.safetensors`` and ``vocab.txt`` or a SentencePiece
            model (see `read_sentencepiece`); where they are there, ``tokenizer_config.json`` tells about
            lower-casing and ``1_Pooling/config.json`` about pooling.
        dtype: Keras dtype policy of the backbone; the global one when None.
        tokenizer: Tokenizer to use instead of the folder's.
        load_weights: Whether to load the weights; without them they are random.

    Returns:
        The backbone, its tokenizer, and the pooling that suits it.

    Raises:
        WeightsError: If a file is missing or damaged, or the model is of a family that does not load.
    """
    unneeded = {"model.safetensors"} if not load_weights else set()
    check = tuple(name for name in _FILES if name not in unneeded)
    pieces = tokenizer is None and _has_sentencepiece(folder)
    check_files(folder, check if pieces or tokenizer is not None else (*check, _usual_vocabulary(folder)))
    config = read_json(folder / "config.json")
    _check_config(folder, config)
    if load_weights:
        check_safetensors(folder / "model.safetensors")
    try:
        backbone = keras_hub.models.Backbone.from_preset(str(folder), load_weights=load_weights, dtype=dtype)
    except Exception as error:
        # A tensor that is missing or has another shape surfaces here as one of many kinds.
        raise WeightsError(
            f"{folder / 'model.safetensors'} does not fit {folder / 'config.json'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if tokenizer is None:
        tokenizer = read_sentencepiece(folder) if pieces else read_vocabulary(folder)
    return backbone, tokenizer, _pooling(folder, config)


def read_sentencepiece(folder: Path) -> SentencePieceTokenizer:
    """Makes the tokenizer of a folder with a SentencePiece model.

    Args:
        folder: Folder with ``sentencepiece.model``, whose pieces stand in the order of the encoder's ids, as
            presets built by tfapp have it; else with ``tokenizer.json``; else with XLM-R's
            ``sentencepiece.bpe.model``, whose ids are moved as fairseq moved them.

    Returns:
        The tokenizer.

    Raises:
        WeightsError: If the file is damaged, or of another kind.
    """
    path = folder / next(name for name in _SENTENCEPIECE if (folder / name).is_file())
    if path.name == "tokenizer.json":
        return SentencePieceTokenizer(read_tokenizer_json(path))
    content = path.read_bytes()
    try:
        moved = path.name == "sentencepiece.bpe.model"
        return SentencePieceTokenizer(with_encoder_ids(content) if moved else content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _has_sentencepiece(folder: Path) -> bool:
    """Tells a folder with SentencePiece from one with WordPiece, which may have a tokenizer.json as well."""
    if (folder / "vocab.txt").is_file():
        return False
    return any((folder / name).is_file() for name in _SENTENCEPIECE)


def _usual_vocabulary(folder: Path) -> str:
    """Names the vocabulary file that publishers of a folder's family of encoders put beside the weights."""
    path = folder / "config.json"
    family = read_json(path).get("model_type") if path.is_file() else None
    return "tokenizer.json" if family == "xlm-roberta" else "vocab.txt"


def read_vocabulary(folder: Path) -> WordPieceTokenizer:
    """Makes the tokenizer of a folder with ``vocab.txt``.

    Args:
        folder: Folder with ``vocab.txt``, and mostly ``tokenizer_config.json``.

    Returns:
        A tokenizer that lower-cases as ``tokenizer_config.json`` says; without that file, when the vocabulary
        has no piece with a capital letter.

    Raises:
        WeightsError: If the vocabulary cannot be read or is not BERT's.
    """
    path = folder / "vocab.txt"
    try:
        pieces = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. Download it again.") from error
    cased = any(piece != piece.lower() for piece in pieces if not piece.startswith("["))
    lowercase = not cased
    if (folder / "tokenizer_config.json").is_file():
        lowercase = bool(read_json(folder / "tokenizer_config.json").get("do_lower_case", lowercase))
    try:
        return WordPieceTokenizer([piece.rstrip("\r") for piece in pieces], lowercase=lowercase)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    path, family = folder / "config.json", config.get("model_type")
    if family not in _FAMILIES:
        raise WeightsError(
            f"{path}: the model type {family!r} does not load; families that do: {', '.join(_FAMILIES)}. "
            "Another encoder can be given to build_text_classifier as an object, with its tokenizer."
        )
    activation = config.get("hidden_act", config.get("activation", "gelu"))
    if activation not in _GELU:
        raise WeightsError(
            f"{path}: the activation {activation!r} is not GELU, the only one that loads exactly."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise WeightsError(f"{path}: only absolute position embeddings load.")


def _pooling(folder: Path, config: dict[str, Any]) -> str:
    """Takes a sentence encoder's own pooling, else the one that its family was trained with."""
    path = folder / "1_Pooling" / "config.json"
    if path.is_file():
        chosen = read_json(path)
        if chosen.get("pooling_mode_cls_token"):
            return "cls"
        if chosen.get("pooling_mode_mean_tokens"):
            return "mean"
    return _FAMILIES[config["model_type"]]
