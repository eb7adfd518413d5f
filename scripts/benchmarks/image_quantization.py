"""What int8 costs and gains on images: accuracy, size, and latency beside ONNX Runtime float32.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/image_quantization.py [--quick] [--tune 4]

A head is trained on the magnetic tiles, and with `--tune` the whole network behind it; `export` then measures
every artifact on the whole test split. The same graph is converted to ONNX by tf2onnx, which is installed
into a folder of its own. For latency every runtime is a process of its own, on one thread; they take turns,
block by block, on the same pixels.
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
from reporting import about_run, data_file, markdown_table, report, save
from turns import Worker, work

from tfapp.assets import cache_dir

ONNX_PINS = ("tf2onnx==1.17.0", "onnx==1.23.2", "onnxruntime==1.31.1")
LITERT = ("float32", "dynamic", "int8")
ONNX = "ONNX Runtime float32"
WARMUP = 3
TUNING_RATES = {"mobilenet-v2": 3e-4, "resnet50-nsfw": 1e-4}


def onnx_packages(folder: Path | None) -> Path:
    """Installs converter and runtime beside the environment, once."""
    target = (folder or cache_dir() / "peers") / "onnx"
    finished = target / "finished.txt"
    if not finished.is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*command, *ONNX_PINS], check=True)
        finished.write_text("\n".join(ONNX_PINS))
    return target


def prepare(options: argparse.Namespace, backbone: str, folder: Path) -> dict[str, Any]:
    """Trains, exports and measures; returns the manifest's entries by variant."""
    from tfapp import Budget, Phase, build_image_classifier, evaluate, export, load_image_data, train

    data = load_image_data(data_file("magnetic_tile.tar.gz"), validation_fraction=0.15, seed=7)
    model = build_image_classifier(backbone, classes=data.classes, image_size=options.image_size)
    phases = [Phase("head", options.epochs, 5e-3)]
    if options.tune:
        phases.append(Phase("all", options.tune, TUNING_RATES[backbone]))
    train(
        model,
        data,
        phases=phases,
        sampling="balanced",
        augment={"horizontal_flip": True, "vertical_flip": True},
        keep_best=False,
        seed=options.seed,
        verbose=False,
    )
    evaluate(model, data.test, calibrate_with=data.validation, num_bootstrap=10)
    lenient = Budget(min_agreement=0.0, max_accuracy_drop=1.0, max_scale_error=1.0, max_golden_difference=1.0)
    release = export(
        model,
        folder / "saved_models" / "tiles",
        check_with=data.test,
        data=data,
        budget=lenient,
        variants=("saved_model", "float32", "float16", "dynamic", "int8"),
    )
    pixels, _ = model.preprocessor.fixed(data.test.images[: options.block])
    np.save(folder / "pixels.npy", pixels["pixels"])
    (folder / "release.txt").write_text(str(release.path))
    return {row["variant"]: row for row in release.manifest["artifacts"]}


def convert(folder: Path, packages: Path) -> None:
    """Converts the SavedModel's endpoint for pixels, in a process that sees tf2onnx."""
    release = (folder / "release.txt").read_text()
    script = (
        "import sys, tensorflow as tf, tf2onnx\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "size = loaded.signatures['serve_pixels'].structured_input_signature[1]['pixels'].shape[1:]\n"
        "spec = tf.TensorSpec([1, *size], tf.uint8, name='pixels')\n"
        "def run(pixels):\n"
        "    return {'probabilities': loaded.signatures['serve_pixels'](pixels=pixels)['probabilities']}\n"
        "function = tf.function(run, input_signature=[spec])\n"
        "tf2onnx.convert.from_function(function, [spec], opset=18, output_path=sys.argv[2])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(packages), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", script, release, str(folder / "model.onnx")]
    subprocess.run(command, check=True, env=environment, capture_output=True)


def serve(kind: str, model: str, packages: str) -> None:
    """Answers as a worker with one file."""
    if kind == ONNX:
        sys.path.insert(0, packages)
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

        def run(pixels: np.ndarray) -> Any:
            return session.run(["probabilities"], {"pixels": pixels})
    else:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=model, num_threads=1)
        runner = interpreter.get_signature_runner("serving_default")
        dtype = runner.get_input_details()["pixels"]["dtype"]

        def run(pixels: np.ndarray) -> Any:
            return runner(pixels=pixels.astype(dtype))

    def measure(pixels: str) -> dict[str, list[float]]:
        images = np.load(pixels)
        for image in images[:WARMUP]:
            run(image[None])
        seconds = []
        for image in images:
            started = time.perf_counter()
            run(image[None])
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    work({}, measure)


def latencies(options: argparse.Namespace, folder: Path, packages: Path) -> dict[str, list[list[float]]]:
    """Lets the runtimes take turns; returns seconds by runtime and block."""
    release = Path((folder / "release.txt").read_text())
    files = {f"LiteRT {name}": release / "edge" / f"model-{name}.tflite" for name in LITERT}
    files[ONNX] = folder / "model.onnx"
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker(sys.executable, __file__, ["--serve", name, file, packages], threads=1)
            )
            for name, file in files.items()
        }
        return _turns(workers, options.rounds, str(folder / "pixels.npy"))


def _turns(workers: dict[str, Worker], rounds: int, pixels: str) -> dict[str, list[list[float]]]:
    order = list(workers)
    seconds: dict[str, list[list[float]]] = {name: [] for name in order}
    for number in range(rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            seconds[name].append(workers[name].ask(pixels=pixels)["seconds"])
    return seconds


def tables(rows: dict[str, Any], seconds: dict[str, list[list[float]]]) -> tuple[str, str]:
    """Makes the tables of accuracy and size, and of latency."""
    whole = rows["float32"]["bytes"]
    kept = [
        [
            name,
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bytes'] / whole:.1%}",
            f"{row['accuracy']:.4f}",
            f"{100 * row['accuracy_drop']:+.2f}",
            f"{row['agreement']:.4f}",
        ]
        for name, row in rows.items()
        if name != "saved_model"
    ]
    first = markdown_table(["artifact", "MB", "of float32", "accuracy", "points lost", "agreement"], kept)
    medians = {name: [statistics.median(block) for block in blocks] for name, blocks in seconds.items()}
    lines = []
    for name, blocks in medians.items():
        p50, p95 = np.percentile(1e3 * np.concatenate(seconds[name]), [50, 95])
        ratios = [other / own for other, own in zip(blocks, medians["LiteRT int8"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append([name, f"{p50:.2f}", f"{p95:.2f}", spread])
    second = markdown_table(["batch 1, 1 thread", "p50 ms", "p95 ms", "p50 / int8 (blocks)"], lines)
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", choices=TUNING_RATES, default=list(TUNING_RATES))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=20, help="of the head")
    parser.add_argument("--tune", type=int, default=0, help="epochs of the whole network behind it")
    parser.add_argument("--quick", action="store_true", help="one epoch, 2 blocks of 5 images: a check only")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of images")
    parser.add_argument("--block", type=int, default=40, help="images in a block")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-dir", type=Path, help="folder of the peers' packages; default: the cache")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder for all figures")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve)
    if options.quick:
        options.epochs, options.rounds, options.block = 1, 2, 5
    data_file("magnetic_tile.tar.gz")
    packages = onnx_packages(options.env_dir)
    about = about_run()
    figures: dict[str, Any] = {}
    for backbone in options.backbones:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            rows = prepare(options, backbone, folder)
            convert(folder, packages)
            seconds = latencies(options, folder, packages)
        first, second = tables(rows, seconds)
        trained = f"head {options.epochs} epochs, everything {options.tune}"
        report(f"Artifacts of {backbone} ({trained}) on the magnetic tiles' test split", about, first, [])
        report(
            f"Latency of {backbone}, {options.image_size} x {options.image_size} pixels", about, second, []
        )
        figures[backbone] = {"artifacts": rows, "seconds": seconds}
        save(options.output, "image-quantization", about, {"figures": figures})
    return None


if __name__ == "__main__":
    main()
