"""The builder of text classifiers on BERT and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras

from tfapp.data.chinese_script import simplified_characters
from tfapp.data.tokenizers import Tokenizer
from tfapp.errors import ConfigError, WeightsError
from tfapp.models.encoders import randomise_encoder
from tfapp.models.presets import load_backbone
from tfapp.models.text_classifier import TextClassifier


def build_text_classifier(
    backbone: str | keras.Model,
    *,
    classes: Sequence[str],
    pooling: str | None = None,
    dropout_rate: float = 0.1,
    tokenizer: Tokenizer | None = None,
    max_length: int | None = None,
    long_texts: Literal["truncate", "windows"] | None = None,
    script: Literal["simplified"] | None = None,
    weights: Literal["pretrained"] | None = "pretrained",
    dtype: str | None = None,
    allow_unsafe: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> TextClassifier:
    """Builds an uncompiled text classifier, from token ids to logits.

    Args:
        backbone: What `load_backbone` takes, such as ``"minilm-l6"``, or a functional text encoder of
            keras-hub or your own that takes ``token_ids``, ``padding_mask`` and mostly ``segment_ids``.
        classes: Names of the classes, in the order of the logits; 2 or more, all different.
        pooling: ``"mean"`` over tokens, ``"cls"`` for the first token, ``"pooler"`` for BERT's own pooler;
            when None the preset's choice, and ``"mean"`` for an encoder given as an object.
        dropout_rate: Share of pooled features dropped in training, from 0 up to but not including 1.
        tokenizer: Tokenizer to use instead of the preset's; needed with an encoder given as an object.
        max_length: Most tokens of a text or a window, at least 3; when None, `train` decides.
        long_texts: What happens to longer texts: ``"truncate"``, or ``"windows"``, overlapping by a quarter
            and at most 16, whose logits are averaged; the tokenizer's own way, ``"truncate"`` unless it
            was made otherwise, when None.
        script: ``"simplified"`` to read traditional Chinese characters as simplified ones, in training and in
            every artifact; None to tell them apart. It needs the extra ``zh`` here, and nothing afterwards.
        weights: ``"pretrained"``, or None for random ones in a backbone given by name.
        dtype: Keras dtype policy of a backbone given by name, such as ``"mixed_bfloat16"``.
        allow_unsafe: Load Keras files with Lambda layers: code from the file then runs on this machine.
        seed: Seed of the head's initial weights, and of random weights.
        name: Name of the Keras model.

    Returns:
        A classifier whose head is new and whose backbone has its pretrained weights, unless random ones were
        asked for.

    Raises:
        ConfigError: If the arguments do not fit each other.
        WeightsError: If the backbone cannot be loaded, or the tokenizer does not fit it.
        AssetError: If a packaged backbone cannot be fetched.
    """
    preset = ""
    if isinstance(backbone, str):
        loaded = load_backbone(
            backbone,
            dtype=dtype,
            tokenizer=tokenizer,
            allow_unsafe=allow_unsafe,
            load_weights=weights is not None,
        )
        encoder, preset = loaded.backbone, loaded.preset
        if weights is None:
            randomise_encoder(encoder, seed)
        pooling = pooling or loaded.pooling
        tokenizer = loaded.tokenizer
    else:
        encoder = backbone
        if dtype is not None or weights is None:
            raise ConfigError("dtype and weights go with a backbone's name; build the encoder with them.")
    if tokenizer is None:
        raise ConfigError("a backbone given as an object needs tokenizer=, the one that it was trained with.")
    # Another model with the same tokenizer keeps its own lengths.
    tokenizer = type(tokenizer).from_config(tokenizer.get_config())
    if max_length is not None:
        tokenizer.max_length = max_length
    if long_texts is not None:
        tokenizer.long_texts = long_texts
    if script is not None:
        if script != "simplified":
            raise ConfigError(f"script = {script!r}: it is 'simplified' or None.")
        tokenizer = tokenizer.with_replaced(simplified_characters())
    _check_tokenizer(encoder, tokenizer)
    return TextClassifier(
        encoder,
        classes=classes,
        preprocessor=tokenizer,
        pooling=pooling or "mean",
        dropout_rate=dropout_rate,
        preset=preset,
        built_length=max_length,
        seed=seed,
        name=name,
    )


def _check_tokenizer(encoder: keras.Model, tokenizer: Tokenizer) -> None:
    rows = getattr(encoder, "vocabulary_size", getattr(encoder, "vocab_size", None))
    if rows is not None and len(tokenizer.vocabulary) > rows:
        raise WeightsError(
            f"the vocabulary has {len(tokenizer.vocabulary)} pieces, but the backbone {encoder.name!r} has "
            f"embeddings for {rows}: they do not belong together."
        )
    positions = getattr(encoder, "max_sequence_length", None)
    if positions is not None and tokenizer.max_length > positions:
        raise ConfigError(
            f"max_length = {tokenizer.max_length}: the backbone {encoder.name!r} has {positions} positions."
        )
