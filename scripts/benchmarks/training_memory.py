"""Memory of a training step: what was estimated before it, what it took, and what it takes in parts.

    python scripts/benchmarks/training_memory.py [--output FOLDER]

Batches of 32: texts of 128 tokens for MiniLM, pictures of 224 x 224 pixels for MobileNetV2 and ResNet50, all
of the model trained in float32. Every measurement is a process of its own, which takes a step with one row
and two with the whole batch; what the peak of its resident memory rises by is told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reporting import about_run, markdown_table, report, save

ROWS, LENGTH, SIZE = 32, 128, 224
BACKBONES = ("minilm-l6", "mobilenet-v2", "resnet50-nsfw")
PARTS = (1, 8)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(backbone: str, parts: int) -> dict[str, Any]:
    """Trains two steps; gives estimated and measured bytes."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfapp.models import build_image_classifier, build_text_classifier
    from tfapp.models.folded import folded_parts
    from tfapp.models.fused import fused_parts
    from tfapp.objectives import make_objective
    from tfapp.training.losses import make_loss
    from tfapp.training.memory_estimate import step_bytes
    from tfapp.training.optimizers import FusedAdamW
    from tfapp.training.trainer import TrainingModel

    if backbone == "minilm-l6":
        model = build_text_classifier(backbone, classes=("a", "b"))
    else:
        model = build_image_classifier(backbone, classes=("a", "b"), image_size=SIZE)
    generator = keras.random.SeedGenerator(0)
    faster = fused_parts(
        model, "all", precision="float32", generator=generator, typical_length=LENGTH
    ) or folded_parts(model, "all", precision="float32")

    def make_trainer() -> TrainingModel:
        trainer = TrainingModel(
            model,
            objective=make_objective("standard"),
            forward=faster.upper if faster else None,
            num_microbatches=parts,
        )
        trainer.compile(optimizer=FusedAdamW(1e-5), loss=make_loss("cross_entropy"), jit_compile=False)
        return trainer

    draw = np.random.default_rng(0)

    def batch(rows: int) -> tuple[dict[str, Any], Any]:
        labels = np.zeros(rows, np.int32)
        if backbone != "minilm-l6":
            return {"pixels": draw.uniform(0, 255, (rows, SIZE, SIZE, 3)).astype(np.float32)}, labels
        ids = draw.integers(1000, 20000, (rows, LENGTH)).astype(np.int32)
        return {
            "token_ids": ids,
            "padding_mask": np.ones_like(ids),
            "segment_ids": np.zeros_like(ids),
        }, labels

    started = time.perf_counter()
    estimated = step_bytes(make_trainer(), rows=-(-ROWS // parts), length=LENGTH)
    seconds = time.perf_counter() - started
    trainer = make_trainer()
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.fit(tf.data.Dataset.from_tensors(batch(1)), verbose=0)
    before = _resident("VmRSS")
    trainer.fit(tf.data.Dataset.from_tensors(batch(ROWS)).repeat(2), verbose=0)
    return {"estimated": estimated, "measured": _resident("VmHWM") - before, "seconds": seconds}


def main() -> None:
    """Measures each model in whole batches and in parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
        return
    about = about_run()
    found, rows = [], []
    for backbone in BACKBONES:
        for parts in PARTS:
            command = [sys.executable, __file__, "--one", backbone, str(parts)]
            ended = subprocess.run(command, capture_output=True, text=True, check=True)
            one = json.loads(ended.stdout.splitlines()[-1])
            found.append({"backbone": backbone, "parts": parts, **one})
            mega = [f"{one[name] / 1e6:,.0f}" for name in ("estimated", "measured")]
            rows.append([backbone, str(parts), *mega, f"{one['estimated'] / one['measured']:.2f}"])
    headers = ["model", "parts", "estimated, MB", "measured, MB", "ratio"]
    report(f"Memory of a step with {ROWS} rows", about, markdown_table(headers, rows), [])
    if given.output:
        save(given.output, "training-memory", about, {"figures": found})


if __name__ == "__main__":
    main()
