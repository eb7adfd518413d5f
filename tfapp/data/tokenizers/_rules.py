"""SentencePiece's rules that replace characters: out of the compiled form, and into it again."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

_BYTES = np.arange(1, 256, dtype=np.uint32)


def read_rules(compiled: bytes) -> dict[str, str]:
    """Reads compiled rules.

    Args:
        compiled: ``precompiled_charsmap`` of a model: a double-array trie of what is replaced, in which each
            entry leads to what replaces it.

    Returns:
        What replaces each sequence of characters.
    """
    if not compiled:
        return {}
    (size,) = struct.unpack_from("<I", compiled)
    units = np.frombuffer(compiled, "<u4", size // 4, 4)
    texts = compiled[4 + size :]
    rules: dict[str, str] = {}
    bases, prefixes = _offsets(units[:1]), [b""]
    while len(bases):
        # All children of all nodes of one depth at once.
        nodes = bases[:, np.newaxis] ^ _BYTES
        inside = nodes < len(units)
        found = np.where(inside, units[np.where(inside, nodes, 0)], 0)
        rows, columns = np.nonzero(inside & ((found & 0x800000FF) == _BYTES))
        children, labels = found[rows, columns], _BYTES[columns]
        bases = nodes[rows, columns] ^ _offsets(children)
        prefixes = [prefixes[row] + bytes([label]) for row, label in zip(rows, labels, strict=True)]
        for number in np.flatnonzero(children & 0x100):
            place = int(units[bases[number]] & 0x7FFFFFFF)
            rules[prefixes[number].decode()] = texts[place : texts.index(b"\0", place)].decode()
    return rules


def _offsets(units: np.ndarray) -> np.ndarray:
    return (units >> 10) << ((units & 0x200) >> 6)


def compile_rules(rules: Mapping[str, str]) -> bytes:
    """Compiles rules; see `read_rules`.

    Args:
        rules: What replaces each sequence of characters.

    Returns:
        The ``precompiled_charsmap`` of a model with these rules.
    """

    def points(text: str) -> str:
        return " ".join(f"{ord(character):X}" for character in text)

    stream = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text("".join(f"{points(old)}\t{points(new)}\n" for old, new in rules.items()))
        # The library compiles rules only where it trains a model: the smallest that there can be.
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"] * 5),
            model_writer=stream,
            model_type="char",
            vocab_size=8,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(table),
            minloglevel=2,
        )
    model = sentencepiece_model_pb2.ModelProto.FromString(stream.getvalue())  # type: ignore[attr-defined]
    return bytes(model.normalizer_spec.precompiled_charsmap)
