"""Tokenizer throughput on SST-2 sentences: tfapp beside keras-hub and Hugging Face's fast tokenizer.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/tokenizer_speed.py [--quick] [--output FOLDER]

Batches of 1,024 Python strings in, token ids with [CLS] and [SEP] out. The two environments have
a process each and the contestants take turns, with one thread and with all cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import PeerError, peer_python
from reporting import about_run, data_file, markdown_table, report, save, versions
from turns import Worker, WorkerError, work

from tfapp.assets import ASSETS, fetch

BATCH = 1024
OURS = "tfapp WordPieceTokenizer: padded tensors"
WAYS = {
    OURS: ("tfapp", "call"),
    "tfapp WordPieceTokenizer.encode: ragged arrays": ("tfapp", "encode"),
    "tfapp WordPieceTokenizer in tf.data: padded tensors": ("tfapp", "dataset"),
    "keras_hub BertTokenizer + packer in tf.data": ("tfapp", "keras_hub"),
    "transformers fast tokenizer: padded arrays": ("peer", "transformers"),
    "tokenizers encode_batch_fast: ragged lists": ("peer", "tokenizers"),
}


def serve(threads: int, max_length: int) -> None:
    """Answers as the worker of tfapp and keras-hub, which share an environment."""
    import keras_hub
    import tensorflow as tf

    from tfapp.data.tokenizers import WordPieceTokenizer

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    pieces = (fetch(ASSETS["minilm-l6"]) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = WordPieceTokenizer(pieces, max_length=max_length)
    call = tf.function(
        tokenizer.__call__, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    keras_hub_tokenizer = keras_hub.tokenizers.BertTokenizer(pieces, lowercase=True, strip_accents=True)
    packer = keras_hub.layers.MultiSegmentPacker(
        sequence_length=max_length,
        start_value=keras_hub_tokenizer.cls_token_id,
        end_value=keras_hub_tokenizer.sep_token_id,
        pad_value=keras_hub_tokenizer.pad_token_id,
    )
    parallel = tf.data.AUTOTUNE if threads > 1 else None

    pipelines: dict[str, tf.data.Dataset] = {}

    def through_dataset(
        way: str, function: Callable[[tf.Tensor], Any], batches: list[list[str]]
    ) -> Iterator[Any]:
        """Goes through a tf.data pipeline, built and traced in the first round, which is not counted."""
        if way not in pipelines:
            strings = tf.data.Dataset.from_tensor_slices([text for texts in batches for text in texts])
            pipeline = strings.batch(BATCH).map(function, num_parallel_calls=parallel)
            pipelines[way] = pipeline.prefetch(2) if threads > 1 else pipeline
        return iter(pipelines[way])

    def keras_hub_call(texts: tf.Tensor) -> tf.Tensor:
        return packer(keras_hub_tokenizer(texts))

    ways: dict[str, Callable[[list[list[str]]], Any]] = {
        "call": lambda batches: (call(tf.constant(texts))["token_ids"].numpy() for texts in batches),
        "encode": lambda batches: (tokenizer.encode(texts) for texts in batches),
        "dataset": lambda batches: through_dataset("tfapp", tokenizer, batches),
        "keras_hub": lambda batches: through_dataset("keras_hub", keras_hub_call, batches),
    }

    def measure(way: str, batches: list[list[str]], ids: bool = False) -> dict[str, Any]:
        if ids:
            encoded = tokenizer.encode([text for texts in batches for text in texts])
            return {"ids": [row.tolist() for row in np.split(encoded.values, encoded.row_splits[1:-1])]}
        started = time.perf_counter()
        for _ in ways[way](batches):
            continue
        return {"seconds": time.perf_counter() - started}

    work({"versions": versions("keras-hub")}, measure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 batches: a check only")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of 6 batches (default: 7)")
    parser.add_argument(
        "--max-length", type=int, default=128, help="where texts are cut, in tokens (default: 128)"
    )
    parser.add_argument(
        "--env-dir", type=Path, help="folder of the peers' environments; default: the cache of tfapp"
    )
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.max_length)

    frame = pd.read_csv(data_file("sst2", "train.csv"), dtype=str, keep_default_na=False)
    texts = frame["text"].tolist()
    rounds, count = (2, 2) if options.quick else (options.rounds, len(texts) // BATCH)
    batches = [texts[start * BATCH : (start + 1) * BATCH] for start in range(count)]
    about = about_run()
    result: dict[str, Any] = {}
    rows = []
    try:
        python = peer_python("transformers", env_dir=options.env_dir)
        for threads in sorted({1, os.cpu_count() or 1}):
            figures, used, alike = run(python, batches, rounds, threads, options.max_length)
            about["versions"] |= used
            result[f"threads_{threads}"] = figures
            for way, figure in figures.items():
                ratio = "1" if way == OURS else f"{figure['ours_times_faster']:.1f}x"
                rows.append([way, str(threads), f"{figure['strings_per_second']:,.0f}", ratio])
    except (PeerError, WorkerError) as error:
        sys.exit(str(error))
    table = markdown_table(["batches of 1,024 strings", "threads", "strings/s", "ours is faster by"], rows)
    note = (
        f"medians over {rounds} rounds of {count * BATCH:,} SST-2 training sentences, ratios within a round"
    )
    same = f"token ids equal to those of the fast tokenizer: {alike:.2%} of the sentences"
    report("Tokenizer", about, table, [note, same])
    if options.output:
        print(save(options.output, "tokenizer-speed", about, {"figures": result, "equal_ids": alike}))
    return None


def run(
    python: Path, batches: list[list[str]], rounds: int, threads: int, max_length: int
) -> tuple[dict[str, Any], dict[str, str], float]:
    """Lets the contestants take turns; returns their figures, versions and the share of equal token ids."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    used: dict[str, str] = {}
    model = fetch(ASSETS["minilm-l6"])
    with contextlib.ExitStack() as stack:
        workers = {
            "tfapp": Worker(
                sys.executable, __file__, ["--serve", threads, "--max-length", max_length], threads=threads
            ),
            "peer": Worker(
                python, "peer_tokenizer.py", ["--model", model, "--max-length", max_length], threads=threads
            ),
        }
        for worker in workers.values():
            stack.enter_context(worker)
            used |= worker.about["versions"]
        pairs = zip(
            *(worker.ask(way="", batches=batches, ids=True)["ids"] for worker in workers.values()),
            strict=True,
        )
        alike = statistics.fmean(ours == theirs for ours, theirs in pairs)
        for round_number in range(rounds + 1):
            for way, (worker, name) in WAYS.items():
                taken = workers[worker].ask(way=name, batches=batches)["seconds"]
                if round_number:  # the first round warms up
                    seconds[way].append(taken)
    strings = sum(map(len, batches))
    figures = {
        way: {
            "strings_per_second": strings / statistics.median(taken),
            "strings_per_second_per_round": [strings / one for one in taken],
            "ours_times_faster": statistics.median(
                theirs / ours for theirs, ours in zip(taken, seconds[OURS], strict=True)
            ),
        }
        for way, taken in seconds.items()
    }
    return figures, used, alike


if __name__ == "__main__":
    main()
