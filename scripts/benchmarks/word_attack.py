"""The word attack beside TextAttack's: success, queries and seconds on the first texts of SST-2's test set.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/word_attack.py [--quick] [--output FOLDER]

One classifier, MiniLM-L6 with BERT's pooler, fine-tuned for one epoch by transformers and read by both sides
from the same folder; tfapp runs it in TensorFlow, TextAttack in PyTorch. Every participant is a process of
its own, in turn; loading and one example to warm up are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import PeerError, peer_python, run_json
from reporting import about_run, data_file, markdown_table, report, save, versions
from rounds import run_rounds

from tfapp.assets import ASSETS, fetch

CLASSES = ("negative", "positive")
MAX_CHANGED, MIN_SIMILARITY = 0.2, 0.8
MAX_LENGTH = 128
OURS = "tfapp"
PEERS = {"TextAttack, the same synonyms": "table", "TextAttack, its own WordNet swap": "wordnet"}


def attack_ours(options: argparse.Namespace) -> None:
    """Attacks as a participant, and prints one JSON line."""
    import keras
    import pandas as pd
    import tensorflow as tf
    from safetensors.numpy import load_file

    from tfapp import build_text_classifier
    from tfapp.attacks.words import word_substitution
    from tfapp.evaluation.similarity import TextVectors, sentence_similarity

    model = build_text_classifier(
        str(options.attack), classes=CLASSES, pooling="pooler", max_length=MAX_LENGTH
    )
    weights = load_file(options.attack / "model.safetensors")
    head = model.layers[-1]
    assert isinstance(head, keras.layers.Dense)
    head.set_weights([weights["classifier.weight"].T, weights["classifier.bias"]])
    logits = TextVectors(model, model.preprocessor)
    similarity = sentence_similarity()

    def predict(texts: list[str]) -> Any:
        return tf.nn.softmax(logits(texts)).numpy()

    frame = pd.read_csv(data_file("sst2", "test.csv"), dtype=str, keep_default_na=False)
    texts = frame["text"].tolist()[: options.examples]
    labels = [CLASSES.index(name) for name in frame["label"][: options.examples]]

    def attack(count: int) -> Any:
        return word_substitution(
            predict,
            texts[:count],
            labels[:count],
            similarity_fn=similarity,
            max_changed=MAX_CHANGED,
            min_similarity=MIN_SIMILARITY,
        )

    attack(1)
    started = time.perf_counter()
    found = attack(options.examples)
    seconds = time.perf_counter() - started
    outcomes = [
        {"clean_correct": bool(correct), "success": bool(success), "queries": int(queries), "text": text}
        for correct, success, queries, text in zip(
            found.clean_correct, found.success, found.queries, found.texts, strict=True
        )
    ]
    print(json.dumps({"seconds": seconds, "outcomes": outcomes, "versions": versions("tensorflow")}))


def prepare(options: argparse.Namespace, folder: Path, python: Path) -> None:
    """Fine-tunes the classifier into a folder that both sides read."""
    command = [python, Path(__file__).with_name("peer_latency.py"), "prepare", "--folder", folder]
    command += ["--model", fetch(ASSETS["minilm-l6"]), "--train", data_file("sst2", "train.csv")]
    command += ["--max-length", MAX_LENGTH, *(["--limit", 640] if options.quick else [])]
    print("preparing the classifier", file=sys.stderr)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    words = list(map(str, command))
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PeerError(f"{' '.join(words)}\nended with {ended.returncode}:\n{ended.stderr[-3000:]}")


def attack_theirs(options: argparse.Namespace, folder: Path, python: Path, candidates: str) -> dict[str, Any]:
    arguments = ["--candidates", candidates, "--model", folder, "--encoder", fetch(ASSETS["minilm-l6"])]
    arguments += ["--texts", data_file("sst2", "test.csv"), "--classes", *CLASSES]
    arguments += ["--examples", options.examples, "--max-changed", MAX_CHANGED]
    arguments += ["--min-similarity", MIN_SIMILARITY, "--max-length", MAX_LENGTH]
    return run_json(python, "peer_textattack.py", arguments)


def summarise(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """One participant's figures over all rounds; the rounds differ in time only."""
    outcomes = answers[0]["outcomes"]
    attacked = [outcome for outcome in outcomes if outcome["clean_correct"]]
    seconds = statistics.median(answer["seconds"] for answer in answers)
    return {
        "attacked": len(attacked),
        "clean_accuracy": len(attacked) / len(outcomes),
        "success_rate": sum(outcome["success"] for outcome in attacked) / len(attacked),
        "queries": statistics.mean(outcome["queries"] for outcome in attacked),
        "seconds_per_example": seconds / len(attacked),
        "repeated": all(answer["outcomes"] == outcomes for answer in answers),
    }


def print_report(about: dict[str, Any], results: list[dict[str, Any]], examples: int) -> None:
    by_name = {name: [row for row in results if row["participant"] == name] for name in (OURS, *PEERS)}
    figures = {name: summarise(rows) for name, rows in by_name.items() if rows}
    if OURS not in figures or len(figures) < 2:
        sys.exit("broke before both sides were measured")
    ours = figures[OURS]
    rows = [
        [
            name,
            f"{it['attacked']} of {examples}",
            f"{it['success_rate']:.1%}",
            f"{it['queries']:.1f}",
            f"{it['seconds_per_example']:.3f}",
            f"{it['seconds_per_example'] / ours['seconds_per_example']:.1f}x",
        ]
        for name, it in figures.items()
    ]
    header = ("", "attacked", "success", "queries an example", "seconds an example", "time to tfapp's")
    same = next(iter(PEERS))
    pairs = list(
        zip(by_name[OURS][0]["outcomes"], by_name.get(same, [{"outcomes": []}])[0]["outcomes"], strict=False)
    )
    agree = sum(a["clean_correct"] == b["clean_correct"] and a["success"] == b["success"] for a, b in pairs)
    notes = [
        "Equal on both sides: deletion ranking, greedy replacement, the most similar of the candidates that "
        f"fool, at most {MAX_CHANGED:.0%} of the words (rounded down), cosine of MiniLM-L6's mean vectors "
        f"with the original >= {MIN_SIMILARITY}, stop words, no limit on queries, float32, two cores.",
        "TextAttack as changed: modules that its import needs and the attack does not are empty; its model "
        "wrapper pads to the longest text of a batch, not to the tokenizer's limit; MaxWordsPerturbed "
        "rounds down, not up; the part of speech comes from tfapp's tagger, and WordNet's files from tfapp's "
        "asset, as NLTK's data come from a hub. TextAttack also ranks words that have no synonym, "
        "encodes the original anew beside every candidate, and keeps hyphens inside words.",
        f"With the same synonyms the two sides agree on {agree} of {len(pairs)} texts.",
        "Every round gave the same texts: "
        + ", ".join(f"{name} {'yes' if it['repeated'] else 'no'}" for name, it in figures.items())
        + ".",
    ]
    report("Word attack beside TextAttack", about, markdown_table(header, rows), notes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=500, help="first texts of the test file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="12 texts, one round: to see that it works")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the saved figures")
    parser.add_argument("--env-dir", type=Path, help="folder of the peers' environments; default: the cache")
    parser.add_argument("--model", type=Path, help="folder of a classifier that an earlier run prepared")
    parser.add_argument("--attack", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        attack_ours(options)
        return
    if options.quick:
        options.examples, options.rounds = 12, 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    try:
        python = peer_python("textattack", env_dir=options.env_dir)
        trainer = None if options.model else peer_python("transformers", env_dir=options.env_dir)
        about = about_run()
        results: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.model or Path(temporary)
            if trainer:
                prepare(options, folder, trainer)
            own = ["--attack", folder, "--examples", options.examples]
            runs = {OURS: lambda number: run_json(sys.executable, "word_attack.py", own)}
            for name, candidates in PEERS.items():
                runs[name] = lambda number, which=candidates: attack_theirs(options, folder, python, which)
            run_rounds(
                runs,
                options.rounds,
                results,
                lambda: save(options.output, "word-attack", about, {"results": results}),
            )
        about["versions"] |= results[1]["versions"]
        print_report(about, results, options.examples)
    except PeerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
