"""From a raw SST-2 sentence to its label: the `text` TFLite file beside transformers and ONNX Runtime.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/latency.py [--quick] [--output FOLDER]

Batch 1, one thread each, the same weights: MiniLM-L6 with BERT's pooler and a head, fine-tuned for one epoch
by the peer and read by tfapp from the peer's folder. Every contestant runs in a process of its own; they take
turns, block by block, on the same sentences. Each block begins with a few answers that are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import PeerError, peer_python
from reporting import about_run, data_file, markdown_table, report, save
from turns import Worker, WorkerError, work

from tfapp.assets import ASSETS, fetch

OURS = "tfapp text TFLite (LiteRT + TF.Text)"
PEERS = {
    "transformers pipeline (torch)": "transformers",
    "torch without the pipeline": "torch",
    "ONNX Runtime int8 + fast tokenizer": "onnxruntime",
    "ONNX Runtime float32 + fast tokenizer": "onnxruntime-float32",
}
WARMUP = 5


def prepare(options: argparse.Namespace, folder: Path, python: Path) -> None:
    """Makes the peers' model files and ours, from the same weights."""
    command = [python, Path(__file__).with_name("peer_latency.py"), "prepare", "--folder", folder]
    command += ["--model", fetch(ASSETS["minilm-l6"]), "--train", data_file("sst2", "train.csv")]
    command += ["--max-length", options.max_length, "--limit", 64 if options.quick else options.rows]
    ours = [sys.executable, __file__, "--export", folder, "--max-length", options.max_length]
    for step in (command, ours):
        print("preparing:", Path(str(step[1])).name, file=sys.stderr)
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        ended = subprocess.run(
            list(map(str, step)), env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise WorkerError(
                f"{' '.join(map(str, step))}\nended with {ended.returncode}:\n{ended.stderr[-3000:]}"
            )


def export_ours(folder: Path, max_length: int) -> None:
    """Reads the peer's weights, head included, and writes the `text` TFLite file beside them."""
    import json

    import keras
    from safetensors.numpy import load_file

    from tfapp import build_text_classifier
    from tfapp.exporters import export_tflite

    names = json.loads((folder / "config.json").read_text())["id2label"]
    classes = [names[str(index)] for index in range(len(names))]
    model = build_text_classifier(str(folder), classes=classes, pooling="pooler", max_length=max_length)
    weights = load_file(folder / "model.safetensors")
    head = model.layers[-1]
    assert isinstance(head, keras.layers.Dense)
    head.set_weights([weights["classifier.weight"].T, weights["classifier.bias"]])
    export_tflite(model, folder, variant="text")


def serve_ours(folder: Path) -> None:
    """Answers as a worker, with the `text` TFLite file alone."""
    import ai_edge_litert.interpreter as litert
    import tensorflow_text as tf_text
    from reporting import versions

    interpreter = litert.InterpreterWithCustomOps(
        model_path=str(folder / "edge" / "model-text.tflite"),
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
        num_threads=1,
    )
    classify = interpreter.get_signature_runner("serving_default")
    names = (folder / "edge" / "labels.txt").read_text(encoding="utf-8").splitlines()

    def answer(text: str) -> str:
        return names[int(classify(text=np.array([text.encode("utf-8")]))["probabilities"].argmax())]

    def measure(texts: list[str], warmup: int) -> dict[str, list[Any]]:
        for text in texts[:warmup]:
            answer(text)
        seconds, labels = [], []
        for text in texts:
            started = time.perf_counter()
            label = answer(text)
            seconds.append(time.perf_counter() - started)
            labels.append(label)
        return {"seconds": seconds, "labels": labels}

    work({"versions": versions("ai-edge-litert", "tensorflow-text")}, measure)


def run(options: argparse.Namespace, folder: Path, python: Path) -> dict[str, Any]:
    """Lets the contestants take turns and returns their times and answers."""
    frame = pd.read_csv(data_file("sst2", "test.csv"), dtype=str, keep_default_na=False)
    rounds, block = (2, 20) if options.quick else (options.rounds, options.block)
    chosen = np.random.default_rng(0).permutation(len(frame))[: rounds * block]
    texts, truth = frame["text"].to_numpy(str)[chosen], frame["label"].to_numpy(str)[chosen]
    blocks = [texts[start : start + block].tolist() for start in range(0, len(texts), block)]
    seconds: dict[str, list[list[float]]] = {}
    labels: dict[str, list[str]] = {}
    used: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers = {OURS: Worker(sys.executable, __file__, ["--serve", folder], threads=1)}
        for title, name in PEERS.items():
            arguments = ["serve", "--folder", folder, "--contestant", name]
            workers[title] = Worker(python, "peer_latency.py", arguments, threads=1)
        for title, worker in workers.items():
            stack.enter_context(worker)
            used |= worker.about["versions"]
            worker.ask(texts=blocks[0], warmup=0)
            seconds[title], labels[title] = [], []
        order = list(workers)
        for index, sentences in enumerate(blocks):
            for title in order[index % len(order) :] + order[: index % len(order)]:
                answer = workers[title].ask(texts=sentences, warmup=WARMUP)
                seconds[title].append(answer["seconds"])
                labels[title] += answer["labels"]
    accuracy = {title: float(np.mean(np.array(answers) == truth)) for title, answers in labels.items()}
    reference = np.array(labels["torch without the pipeline"])
    agreement = {title: float(np.mean(np.array(answers) == reference)) for title, answers in labels.items()}
    return {"seconds": seconds, "accuracy": accuracy, "agreement": agreement, "versions": used}


def table_of(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Makes the markdown table and the figures behind it."""
    rows, figures = [], {}
    ours = [statistics.median(block) for block in result["seconds"][OURS]]
    for title, blocks in result["seconds"].items():
        milliseconds = 1e3 * np.concatenate(blocks)
        p50, p95 = np.percentile(milliseconds, [50, 95])
        ratios = [statistics.median(block) / mine for block, mine in zip(blocks, ours, strict=True)]
        figures[title] = {
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "best_ms": float(milliseconds.min()),
            "p50_ratio_per_block": ratios,
            "accuracy": result["accuracy"][title],
            "agreement": result["agreement"][title],
        }
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(
            [title, f"{p50:.2f}", f"{p95:.2f}", "1" if title == OURS else spread]
            + [f"{result['accuracy'][title]:.3f}", f"{result['agreement'][title]:.3f}"]
        )
    header = [
        "batch 1, 1 thread",
        "p50 ms",
        "p95 ms",
        "p50 / ours (blocks)",
        "accuracy",
        "agreement with torch",
    ]
    return markdown_table(header, rows), figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="2 blocks of 20 sentences, hardly trained: a check only"
    )
    parser.add_argument("--rounds", type=int, default=10, help="blocks of sentences (default: 10)")
    parser.add_argument("--block", type=int, default=100, help="sentences in a block (default: 100)")
    parser.add_argument(
        "--rows", type=int, default=6920, help="sentences to fine-tune on, once (default: all 6920)"
    )
    parser.add_argument(
        "--max-length", type=int, default=128, help="where texts are cut, in tokens (default: 128)"
    )
    parser.add_argument(
        "--models", type=Path, help="folder of the prepared models; made if absent, reused if there"
    )
    parser.add_argument(
        "--env-dir", type=Path, help="folder of the peers' environments; default: the cache of tfapp"
    )
    parser.add_argument("--output", type=Path, help="folder to which the result is added as a JSON file")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        return export_ours(options.export, options.max_length)
    if options.serve:
        return serve_ours(options.serve)

    data_file("sst2", "test.csv")
    about = about_run()
    try:
        python = peer_python("transformers", env_dir=options.env_dir)
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.models or Path(scratch)
            if not (folder / "edge" / "model-text.tflite").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                prepare(options, folder, python)
            result = run(options, folder, python)
            sizes = {name: (folder / name).stat().st_size for name in ("edge/model-text.tflite", "int8.onnx")}
    except (PeerError, WorkerError) as error:
        sys.exit(str(error))
    about["versions"] |= result["versions"]
    table, figures = table_of(result)
    notes = ["SST-2 test sentences as they come; the ratio is the median over blocks (least to largest)"]
    notes += [f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()]
    report("Latency of one sentence", about, table, notes)
    if options.output:
        print(save(options.output, "latency", about, {"figures": figures, "bytes": sizes}))
    return None


if __name__ == "__main__":
    main()
