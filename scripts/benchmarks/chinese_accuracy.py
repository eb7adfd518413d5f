"""Chinese reviews: the whole multilingual encoder, its cut vocabulary, and a student of that, over seeds.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/chinese_accuracy.py [--quick] [--seeds 3]

Each is fine-tuned (the student: distilled from the cut one of the same seed) on ChnSentiCorp's training rows,
and scored on its 1,172 test rows: the last epoch's weights, nothing is chosen by the test split. Then its
`dynamic` and `text` TFLite files are written; the latency is that of the `text` file, from a raw string of
60 characters to the probabilities, on one thread. Finished runs are kept in the output folder, and an
interrupted benchmark goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from peers import run_json
from reporting import about_run, data_file, markdown_table, report

KINDS = {
    "whole": "`e5-small-multilingual`",
    "cut": "`e5-small-zh`",
    "student": "student of `e5-small-zh`",
}
LEARNING_RATE, EPOCHS, LENGTH = 5e-5, 3, 128
STUDENT = {"num_layers": 3, "vocabulary_size": 6500, "epochs": 8, "learning_rate": 4e-4}
CHARACTERS = 60
ASKED, WARM_UP = 300, 20


def load(limit: int | None) -> Any:
    """ChnSentiCorp, or its first rows."""
    from tfapp import load_text_data

    folder = data_file("chnsenticorp", "train.csv").parent
    data = load_text_data(
        folder / "train.csv", validation=folder / "validation.csv", test=folder / "test.csv"
    )
    if limit is None:
        return data

    def first(split: Any) -> Any:
        return replace(split, texts=split.texts[:limit], labels=split.labels[:limit])

    return replace(data, train=first(data.train), validation=first(data.validation), test=first(data.test))


def train_one(kind: str, seed: int, output: Path, limit: int | None) -> dict[str, Any]:
    """Trains one model, scores it, and writes its files for devices."""
    import keras
    import numpy as np

    from tfapp import Phase, build_text_classifier, distill, train
    from tfapp.exporters import export_tflite
    from tfapp.training.inference import predict_logits

    data, started = load(limit), time.perf_counter()
    if kind == "student":
        teacher = keras.saving.load_model(output / f"cut-{seed}.keras", compile=False)
        model = distill(teacher, data, seed=seed, keep_best=False, verbose=False, **STUDENT).student
    else:
        backbone = {"whole": "e5-small-multilingual", "cut": "e5-small-zh"}[kind]
        model = build_text_classifier(backbone, classes=data.classes, max_length=LENGTH, seed=seed)
        phases = [Phase("all", EPOCHS, LEARNING_RATE)]
        train(model, data, phases=phases, seed=seed, keep_best=False, verbose=False)
    seconds = time.perf_counter() - started
    model.save(output / f"{kind}-{seed}.keras")
    scores = {}
    for name in ("validation", "test"):
        split = getattr(data, name)
        answers = predict_logits(model, split.texts, batch_size=32).argmax(axis=1)
        scores[name] = float(np.mean(answers == split.labels))
    with tempfile.TemporaryDirectory() as folder:
        files = {variant: export_tflite(model, folder, variant=variant) for variant in ("dynamic", "text")}
        sizes = {variant: path.stat().st_size / 1e6 for variant, path in files.items()}
        command = [sys.executable, __file__, "--ask", str(files["text"])]
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
    parameters = model.count_params() / 1e6
    return {
        "seconds": seconds,
        "parameters": parameters,
        "megabytes": sizes,
        **scores,
        **json.loads(asked.stdout.splitlines()[-1]),
    }


def ask(path: Path) -> dict[str, float]:
    """Times the `text` file on reviews of 60 characters, one at a time."""
    import numpy as np
    import tensorflow_text as tf_text
    from ai_edge_litert.interpreter import InterpreterWithCustomOps

    texts = [text[:CHARACTERS] for text in load(None).test.texts if len(text) >= CHARACTERS][:ASKED]
    interpreter = InterpreterWithCustomOps(
        model_path=str(path),
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
        num_threads=1,
    )
    runner = interpreter.get_signature_runner("serving_default")
    times = []
    for text in [*texts[:WARM_UP], *texts]:
        given = np.array([text.encode("utf-8")], object)
        started = time.perf_counter()
        runner(text=given)
        times.append(1000 * (time.perf_counter() - started))
    return {"p50": statistics.median(times[WARM_UP:])}


def run(kind: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one model in a process of its own, unless that is done already."""
    kept = options.output / f"{kind}-{seed}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    options.output.mkdir(parents=True, exist_ok=True)
    limit = ["--limit", 64] if options.quick else []
    arguments = ["--child", kind, "--seed", seed, "--output", options.output, *limit]
    answer = run_json(sys.executable, Path(__file__).name, arguments)
    kept.write_text(json.dumps(answer) + "\n")
    print(f"{kind}, seed {seed}: {answer['test']:.4f}", file=sys.stderr, flush=True)
    return answer


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    header = ["model", "parameters", "test accuracy by seed", "mean", "`dynamic`, MB", "`text`, MB"]
    rows = []
    for kind, found in results.items():
        scores = [row["test"] for row in found]
        rows.append(
            [
                KINDS[kind],
                f"{found[0]['parameters']:.2f} M",
                ", ".join(f"{score:.4f}" for score in scores),
                f"{statistics.fmean(scores):.4f}",
                f"{found[0]['megabytes']['dynamic']:.1f}",
                f"{found[0]['megabytes']['text']:.1f}",
                f"{statistics.median(row['p50'] for row in found):.2f}",
                f"{statistics.fmean(row['seconds'] for row in found) / 60:.1f}",
            ]
        )
    return markdown_table([*header, "60 characters to the label, p50 ms", "training, minutes"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--output", type=Path, default=Path("chinese"), help="folder of finished runs")
    parser.add_argument("--quick", action="store_true", help="64 rows and one seed, to see that it runs")
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.ask:
        print(json.dumps(ask(options.ask)))
        return
    if options.child:
        print(json.dumps(train_one(options.child, options.seed, options.output, options.limit)))
        return
    about = about_run()
    seeds = range(1 if options.quick else options.seeds)
    # A student needs its teacher; seeds come one after the other, so that a broken run has whole ones.
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.kinds}
    for seed in seeds:
        for kind in options.kinds:
            results[kind].append(run(kind, seed, options))
    notes = [
        f"teachers: {EPOCHS} epochs at {LEARNING_RATE:g}, batch 32, up to {LENGTH} tokens, mean over tokens",
        f"student: {json.dumps(STUDENT)}; vocabulary of the training texts",
    ]
    report("Chinese reviews (ChnSentiCorp)", about, table(results), notes)


if __name__ == "__main__":
    main()
