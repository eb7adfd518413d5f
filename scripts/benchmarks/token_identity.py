"""Whether training, a SavedModel, a TFLite file and a browser split the same text into the same tokens.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/token_identity.py [--backbones minilm-l6 e5-small-zh]

10,000 lines of Chinese, English, both mixed, emoji, control characters and characters that Unicode has not
assigned yet. Each way runs the backbone's own tokenizer as its artifact carries it: `encode` in training,
the graph of a SavedModel that was written and loaded again, the operators of a TFLite file under LiteRT, and
the scripts of the release's page under Node (passed over where there is none).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert.interpreter import InterpreterWithCustomOps
from reporting import about_run, data_file, markdown_table, report

import tfapp.exporters
from tfapp.models import load_backbone

SHARES = {"Chinese": 3, "English": 3, "mixed": 2, "emoji": 1, "control and unassigned": 1}
"""Kinds of lines, each with how many tenths of all it is."""
LENGTH = 512
PAGE = """
import { readFileSync, writeFileSync } from "node:fs";
import { SentencePiece } from "./sentencepiece.js";
import { WordPiece } from "./wordpiece.js";
const { settings, file, texts } = JSON.parse(readFileSync("given.json", "utf8"));
const tokenizer = { wordpiece: WordPiece, sentencepiece: SentencePiece }[settings.tokenizer].read(
  new Uint8Array(readFileSync(file)), settings);
writeFileSync("answer.json", JSON.stringify(texts.map((text) => tokenizer.encode(text)[0])));
"""


def make_lines(count: int, seed: int = 0) -> dict[str, list[str]]:
    """Draws lines of each kind, the same for the same seed."""
    draw = random.Random(seed)
    chinese = list(pd.read_csv(data_file("chnsenticorp", "train.csv"))["text"])
    english = list(pd.read_csv(data_file("sst2", "train.csv"))["text"])
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    kinds = {point: unicodedata.category(chr(point)) for point in points}
    odd = [chr(point) for point in points if kinds[point] in ("Cc", "Cf", "Cn", "Co")]
    emoji = [chr(point) for point in (*range(0x1F300, 0x1FAFF), *range(0x2600, 0x27BF))]
    emoji += ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e8\U0001f1f3", "\U0001f44d\U0001f3fd"]

    def part(texts: list[str]) -> str:
        text = draw.choice(texts)
        start = draw.randrange(max(1, len(text) - 20))
        return text[start : start + draw.randint(5, 40)]

    def sprinkled(characters: list[str]) -> str:
        pieces = [part(draw.choice((chinese, english)))]
        for _ in range(draw.randint(1, 12)):
            pieces.insert(draw.randint(0, len(pieces)), draw.choice(characters))
        return draw.choice(("", " ")).join(pieces)

    makers = {
        "Chinese": lambda: draw.choice(chinese),
        "English": lambda: draw.choice(english),
        "mixed": lambda: draw.choice(("", " ")).join(
            part(draw.choice((chinese, english))) for _ in range(draw.randint(2, 6))
        ),
        "emoji": lambda: sprinkled(emoji),
        "control and unassigned": lambda: sprinkled(odd),
    }
    return {kind: [makers[kind]() for _ in range(count * share // 10)] for kind, share in SHARES.items()}


class Encode(tf.Module):
    """The tokenizer alone, as artifacts carry it."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.batch = tf.function(
            lambda text: self.tokenizer(text),
            input_signature=[tf.TensorSpec([None], tf.string, name="text")],
            autograph=False,
        )
        self.one = tf.function(
            self._one, input_signature=[tf.TensorSpec([1], tf.string, name="text")], autograph=False
        )

    def _one(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        pieces = self.tokenizer.tokenize(text).values[: self.tokenizer.max_length - 2]
        return {"ids": tf.concat([[self.tokenizer.cls_id], pieces, [self.tokenizer.sep_id]], axis=0)}


def in_training(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    encoded = tokenizer.encode(texts)
    splits = encoded.row_splits
    return [encoded.values[splits[row] : splits[row + 1]].tolist() for row in range(len(texts))]


def in_saved_model(module: Encode, texts: list[str], folder: Path) -> list[list[int]]:
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.batch})
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    rows: list[list[int]] = []
    for start in range(0, len(texts), 256):
        found = signature(text=tf.constant(texts[start : start + 256]))
        lengths = found["padding_mask"].numpy().sum(axis=1)
        ids = found["token_ids"].numpy()
        rows += [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    return rows


def in_tflite(module: Encode, texts: list[str]) -> list[list[int]]:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.one.get_concrete_function()], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = True
    interpreter = InterpreterWithCustomOps(
        model_content=converter.convert(),
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
        num_threads=1,
    )
    runner = interpreter.get_signature_runner("serving_default")
    return [runner(text=np.array([text.encode()], object))["ids"].tolist() for text in texts]


def in_browser(tokenizer: Any, texts: list[str], folder: Path) -> list[list[int]] | None:
    node = shutil.which("node")
    if node is None:
        return None
    shutil.copytree(Path(tfapp.exporters.__file__).with_name("web"), folder)
    (folder / tokenizer.vocabulary_file).write_bytes(tokenizer.vocabulary_content())
    given = {"settings": tokenizer.web_settings(), "file": tokenizer.vocabulary_file, "texts": texts}
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(PAGE)
    subprocess.run([node, "run.js"], cwd=folder, check=True)
    return json.loads((folder / "answer.json").read_text())


def compare(backbone: str, lines: dict[str, list[str]]) -> list[list[str]]:
    """A row of the table for each kind of lines."""
    tokenizer = load_backbone(backbone, load_weights=False).tokenizer
    tokenizer.max_length = LENGTH
    texts = [text for part in lines.values() for text in part]
    module = Encode(tokenizer)
    own = in_training(tokenizer, texts)
    with tempfile.TemporaryDirectory() as scratch:
        ways = {
            "SavedModel": in_saved_model(module, texts, Path(scratch, "saved")),
            "TFLite": in_tflite(module, texts),
            "browser": in_browser(tokenizer, texts, Path(scratch, "page")),
        }
    rows, start = [], 0
    for kind, part in lines.items():
        places = range(start, start + len(part))
        tokens = sum(len(own[place]) - 2 for place in places)
        unknown = sum(own[place].count(tokenizer.unk_id) for place in places)
        same = [
            "no node" if found is None else f"{sum(found[place] == own[place] for place in places):,}"
            for found in ways.values()
        ]
        rows.append([backbone, kind, f"{len(part):,}", *same, f"{unknown / tokens:.2%}"])
        start += len(part)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["minilm-l6", "e5-small-zh"])
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="500 lines, to see that it runs")
    options = parser.parse_args()
    lines = make_lines(500 if options.quick else options.lines)
    about = about_run()
    rows = [row for backbone in options.backbones for row in compare(backbone, lines)]
    header = ["backbone", "lines", "number", "same in the SavedModel", "same in TFLite", "same in a browser"]
    notes = [f"ids with the special tokens, up to {LENGTH} tokens, compared with those of training"]
    report(
        "Tokens of training and of artifacts", about, markdown_table([*header, "unknown pieces"], rows), notes
    )


if __name__ == "__main__":
    main()
