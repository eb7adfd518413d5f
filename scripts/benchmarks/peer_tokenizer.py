"""Tokenises with Hugging Face's fast tokenizer: a worker of `tokenizer_speed.py` in its own environment."""

from __future__ import annotations

import argparse
import time
from importlib import metadata
from pathlib import Path

import turns
from transformers import AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with vocab.txt and tokenizer_config.json"
    )
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    assert tokenizer.is_fast

    def transformers_call(texts: list[str]):
        return tokenizer(
            texts, padding=True, truncation=True, max_length=options.max_length, return_tensors="np"
        )

    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(options.max_length)

    def bare(texts: list[str]):
        return [encoding.ids for encoding in backend.encode_batch_fast(texts)]

    ways = {"transformers": transformers_call, "tokenizers": bare}

    def measure(way: str, batches: list[list[str]], ids: bool = False) -> dict[str, object]:
        if ids:
            return {"ids": [row for texts in batches for row in bare(texts)]}
        started = time.perf_counter()
        for texts in batches:
            ways[way](texts)
        return {"seconds": time.perf_counter() - started}

    turns.work(
        {"versions": {name: metadata.version(name) for name in ("transformers", "tokenizers")}}, measure
    )


if __name__ == "__main__":
    main()
