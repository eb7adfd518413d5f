"""How long a run that was killed takes to its next step, and how many steps it has to do again.

    TFAPP_DATA=/path/to/data python scripts/benchmarks/resume_startup.py [--steps 50] [--kills 75 140 205]

MiniLM on SST-2, all of it, 32 rows a batch, with a checkpoint every `--steps` steps. A process trains from
the beginning and is killed with SIGKILL when it has told step 75; the same command goes on and is killed at
step 140, and so on, and the last one is killed after its first step. Timed from the start of each process to
its first finished step: an epoch has a prime number of steps, so that Keras runs each alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from reporting import about_run, data_file, markdown_table, report, save

STEPS = 211
PARTS = ("import", "data", "model", "first step")


def train_until_killed(run_dir: Path, checkpoint_steps: int) -> None:
    """Trains, and tells on standard output where it stands."""
    import keras

    from tfapp import Phase, build_text_classifier, load_text_data, train

    class Telling(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            print("step", int(self.model.optimizer.iterations.numpy()), flush=True)

    print("import", flush=True)
    files = {name: data_file("sst2", f"{name}.csv") for name in ("train", "validation", "test")}
    data = load_text_data(files["train"], validation=files["validation"], test=files["test"])
    learned = replace(
        data.train, texts=data.train.texts[: STEPS * 32], labels=data.train.labels[: STEPS * 32]
    )
    data = replace(data, train=learned)
    print("data", flush=True)
    model = build_text_classifier("minilm-l6", classes=data.classes, seed=0)
    print("model", flush=True)
    train(
        model,
        data,
        phases=[Phase("all", 5, 5e-5)],
        seed=0,
        callbacks=[Telling()],
        checkpoint_steps=checkpoint_steps,
        run_dir=run_dir,
        verbose=False,
    )


def run_and_kill(run_dir: Path, checkpoint_steps: int, last: int | None) -> dict[str, Any]:
    """Starts a process, kills it after a step, and tells when what was done.

    Args:
        run_dir: Folder of the run.
        checkpoint_steps: Steps between checkpoints.
        last: The step after which it is killed; None for its first one.

    Returns:
        Seconds from the start by what was done, and the first and the last step.
    """
    command = [sys.executable, __file__, "--child", str(run_dir), "--steps", str(checkpoint_steps)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told: dict[str, Any] = {}
    for line in process.stdout:
        word, _, number = line.strip().partition(" ")
        if word != "step":
            told[word] = time.monotonic() - began
            continue
        if "first" not in told:
            told["first step"], told["first"] = time.monotonic() - began, int(number)
        told["last"] = int(number)
        if last is None or told["last"] >= last:
            process.kill()
            break
    process.stdout.close()
    process.wait()
    if "last" not in told:
        sys.exit("a run ended before its first step; what it says stands above")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50, help="between checkpoints")
    parser.add_argument(
        "--kills", type=int, nargs="+", default=[75, 140, 205], help="steps, in ascending order"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        train_until_killed(options.child, options.steps)
        return
    about = about_run()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_and_kill(Path(folder), options.steps, last) for last in (*options.kills, None)]
    table = []
    for number, told in enumerate(runs):
        lost = "" if number == 0 else str(runs[number - 1]["last"] - told["first"] + 1)
        seconds = [
            told[name] - (told[PARTS[place - 1]] if place else 0.0) for place, name in enumerate(PARTS)
        ]
        name = "fresh" if number == 0 else f"killed after step {runs[number - 1]['last']}"
        table.append([name, f"{told['first step']:.1f}", *(f"{each:.1f}" for each in seconds), lost])
    header = ("run", "to the first step, s", *(f"of it {name}" for name in PARTS), "steps lost")
    notes = [f"a checkpoint every {options.steps} steps"]
    report("From the start of a process to its first step", about, markdown_table(header, table), notes)
    save(options.output, "resume-startup", about, {"runs": runs, "steps": options.steps})


if __name__ == "__main__":
    main()
