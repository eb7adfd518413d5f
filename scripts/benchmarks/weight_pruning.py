"""Whether pruned weights pay on the edge: accuracy, size and latency of MiniLM on SST-2 after pruning.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/weight_pruning.py WEIGHTS [--quick]

WEIGHTS are those of a trained classifier, such as `hardening_accuracy.py text` keeps. Magnitude pruning sets
the smallest weights of every kernel in the encoder to zero and keeps them there; structured pruning takes the
weakest hidden units out of each block's feed-forward layers. Both are trained for one more epoch after the
cut, and so is the model that nothing was cut from. Sizes and latencies are of the `dynamic` file, in LiteRT
on one thread, 64 tokens; "packed" is that file under gzip, as an app store or a web server sends it.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from hardening_ours import build, load
from reporting import about_run, markdown_table, report, save

from tfapp import Phase, evaluate, train
from tfapp.exporters import export_tflite
from tfapp.models import TextClassifier

TOKENS = 64
CUTS: tuple[tuple[str, float], ...] = (
    ("none", 0.0),
    ("magnitude", 0.3),
    ("magnitude", 0.5),
    ("magnitude", 0.7),
    ("structured", 0.25),
    ("structured", 0.5),
)


class Zeros(keras.callbacks.Callback):
    """Keeps the smallest weights of every kernel at zero."""

    def __init__(self, model: keras.Model, share: float) -> None:
        super().__init__()
        self._kept: list[tuple[Any, Any]] = []
        for variable in model.backbone.trainable_variables:
            if variable.path.endswith("kernel"):
                values = np.abs(keras.ops.convert_to_numpy(variable))
                kept = values > np.quantile(values, share)
                self._kept.append((variable, keras.ops.convert_to_tensor(kept.astype(np.float32))))
        self.apply()

    def apply(self) -> None:
        for variable, kept in self._kept:
            variable.assign(variable * kept)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.apply()


def narrowed(model: TextClassifier, share: float) -> TextClassifier:
    """Returns the classifier without the weakest hidden units of its feed-forward layers."""
    config = model.backbone.get_config()
    width = int(config["intermediate_dim"])
    backbone = type(model.backbone).from_config(
        config | {"intermediate_dim": width - round(share * width), "name": "narrowed"}
    )
    for layer, source in zip(backbone.layers, model.backbone.layers, strict=True):
        values = {variable.path: np.array(variable) for variable in source.weights}
        up, bias, down = (
            next((path for path in values if path.endswith(f"feedforward_{name}")), None)
            for name in ("intermediate_dense/kernel", "intermediate_dense/bias", "output_dense/kernel")
        )
        if up and bias and down:
            strength = np.linalg.norm(values[up], axis=0) * np.linalg.norm(values[down], axis=1)
            kept = np.sort(np.argsort(strength)[round(share * width) :])
            values[up], values[bias], values[down] = (
                values[up][:, kept],
                values[bias][kept],
                values[down][kept],
            )
        layer.set_weights(list(values.values()))
    smaller = TextClassifier(
        backbone, classes=model.classes, preprocessor=model.preprocessor, pooling=model.pooling
    )
    smaller.layers[-1].set_weights(model.layers[-1].get_weights())
    return smaller


def milliseconds(file: Path, calls: int) -> float:
    """Returns the median time of a call on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(file), num_threads=1).get_signature_runner("serving_default")
    rows = {
        name: np.ones(details["shape"], details["dtype"]) for name, details in run.get_input_details().items()
    }
    times = []
    for _ in range(calls + 5):
        started = time.perf_counter()
        run(**rows)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times[5:]))


def measure(kind: str, share: float, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Cuts, trains for an epoch, exports, and measures."""
    model = build("text", data.classes, 0)
    model.load_weights(options.weights)
    callbacks: list[keras.callbacks.Callback] = []
    if kind == "structured":
        model = narrowed(model, share)
    if kind == "magnitude":
        callbacks.append(Zeros(model, share))
    train(
        model,
        data,
        phases=[Phase("all", 1, 2e-5)],
        max_length=TOKENS,
        batch_size=32,
        precision="auto",
        keep_best=False,
        seed=0,
        callbacks=callbacks,
        verbose=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = export_tflite(model, folder, variant="dynamic")
        return {
            "pruning": kind,
            "share": share,
            "accuracy": evaluate(model, data.test, num_bootstrap=10).accuracy.value,
            "bytes": file.stat().st_size,
            "packed": len(gzip.compress(file.read_bytes())),
            "p50_ms": milliseconds(file, 10 if options.quick else 200),
        }


def table(results: list[dict[str, Any]]) -> str:
    plain = results[0]
    rows = [
        [
            row["pruning"] if row["pruning"] == "none" else f"{row['pruning']}, {row['share']:.0%}",
            f"{100 * row['accuracy']:.2f}",
            f"{100 * (row['accuracy'] - plain['accuracy']):+.2f}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['packed'] / 1e6:.1f}",
            f"{row['p50_ms']:.2f}",
        ]
        for row in results
    ]
    return markdown_table(("pruned", "accuracy, %", "points", "MB", "packed, MB", "p50, ms"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--quick", action="store_true", help="few rows and calls: a check only")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    about = about_run()
    data = load("text", 64 if options.quick else None)
    results = [measure(kind, share, data, options) for kind, share in CUTS]
    path = save(options.output, "weight-pruning", about, {"results": results})
    report("Pruned weights, MiniLM on SST-2", about, table(results), [f"all figures: {path}"])


if __name__ == "__main__":
    main()
