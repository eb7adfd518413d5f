"""Fresh processes that run artifacts: at most a few at a time, and the timing of each alone."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tfapp.disk import disk_full
from tfapp.progress import track
from tfapp.release.answers import Answers, FloatArray
from tfapp.release.probe import Probe
from tfapp.release.runner import ANSWERED, ASK, DISK_FULL

_logger = logging.getLogger("tfapp")
_RUNNER = Path(__file__).with_name("runner.py")
_LATENCY_CALLS = 25
_SECONDS_TO_START = 600.0
_SECONDS_A_ROW = 5.0

_FOREIGN = ("tfapp", "tensorflow", "tensorflow_text", "keras", "keras_hub")
# What runs a variant, and what must not be loaded beside it. tensorflow_text itself imports keras.
_RUNTIMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "saved_model": ("saved_model", ("tfapp", "keras_hub", "ai_edge_litert")),
    "keras": ("keras", ("tfapp", "ai_edge_litert")),
    "text": ("litert_text", ("tfapp", "keras_hub")),
    "onnx": ("onnx", (*_FOREIGN, "ai_edge_litert")),
}
_LITERT: tuple[str, tuple[str, ...]] = ("litert", _FOREIGN)


class ArtifactProcess:
    """One artifact in its own process: it answers all rows, then waits to be timed."""

    def __init__(self, variant: str, folder: Path, rows: int) -> None:
        self.variant = variant
        self._folder = folder
        self._timeout = _SECONDS_TO_START + _SECONDS_A_ROW * rows
        self._timed_out = False
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._answered = False

    def answer(self) -> None:
        """Starts the process and waits until it has answered all rows, or has ended."""
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        started = time.monotonic()
        if self._stopped:
            return
        with (self._folder / "stderr.txt").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", str(_RUNNER), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        self._process = process
        if self._stopped:
            self.stop()
        with self._watched():
            for line in process.stdout or ():
                if line.strip() == ANSWERED:
                    self._answered = True
                    _logger.info(
                        "verify: %s has answered in %.1f s", self.variant, time.monotonic() - started
                    )
                    return

    def ask(self, folder: Path) -> FloatArray | None:
        """Asks the waiting process about further rows.

        Args:
            folder: The rows, as a probe saves them.

        Returns:
            Probabilities ``(rows, num_classes)``; None when the process has ended or cannot answer.
        """
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            return None
        with self._watched():
            try:
                process.stdin.write(f"{ASK}{folder}\n")
                process.stdin.flush()
            except BrokenPipeError:
                return None
            for line in process.stdout or ():
                if line.strip() == ANSWERED:
                    return _probabilities(folder / "outputs.npz")
        return None

    def finish(self) -> Answers:
        """Lets the process time its calls, and collects what it has written.

        Returns:
            Its answers, or the error that took their place.

        Raises:
            OutputError: When it has filled the disk.
        """
        process = self._process
        if process is None:
            return Answers(error="its process was not started")
        with self._watched(), contextlib.suppress(BrokenPipeError):
            process.communicate("go\n")
        return self._read(process.returncode)

    @property
    def waits(self) -> bool:
        """Whether the process is there, and has not ended with an error."""
        return self._answered and self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the process if it is still there."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        def end() -> None:
            self._timed_out = True
            self.stop()

        timer = threading.Timer(self._timeout, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _read(self, status: int) -> Answers:
        try:
            facts = json.loads((self._folder / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {}
        if self._timed_out:
            return Answers(error=f"did not answer within {self._timeout:.0f} s")
        if status == DISK_FULL:
            raise disk_full(self._folder)
        if "error" in facts:
            return Answers(error=f"cannot be run: {facts['error']}")
        if status < 0:
            return Answers(
                error=f"its process was ended by {signal.Signals(-status).name}{self._last_words()}"
            )
        if status or not facts:
            return Answers(error=f"its process ended with status {status}{self._last_words()}")
        try:
            with np.load(self._folder / "outputs.npz", allow_pickle=False) as arrays:
                probabilities = arrays["probabilities"]
                logits = arrays["logits"] if "logits" in arrays.files else None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            return Answers(error=f"its answers cannot be read: {error}")
        return Answers(
            probabilities=probabilities,
            logits=logits,
            labels=tuple(facts["labels"]) if "labels" in facts else None,
            endpoints=facts.get("endpoints", {}),
            endpoint_labels=facts.get("endpoint_labels", {}),
            latency_ms=facts["latency_ms"],
            step=facts.get("step", 0.0),
            inputs={name: tuple(kind) for name, kind in facts.get("inputs", {}).items()},
            libraries=facts["libraries"],
        )

    def _last_words(self) -> str:
        text = (self._folder / "stderr.txt").read_bytes().decode("utf-8", "replace").strip()
        return f" ({text.splitlines()[-1][:300]})" if text else ""


def _probabilities(path: Path) -> FloatArray | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: FloatArray = arrays["probabilities"]
            return found
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


class ArtifactRunner:
    """Runs artifacts over the same rows, a few at a time, and then times them one by one.

    Args:
        folder: A folder for requests and results; the rows are written into it.
        probe: The rows.
        feature: Name of the raw feature.
        tensor_endpoint: Name of the SavedModel's endpoint for tensors.
        temperature: What the Keras file's logits are divided by.
        time_calls: Whether to measure latencies.
    """

    def __init__(
        self,
        folder: Path,
        probe: Probe,
        *,
        feature: str,
        tensor_endpoint: str,
        temperature: float,
        time_calls: bool = True,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(2, cores)
        self._folder = folder
        self._rows = probe.num_rows
        self._request = {
            "feature": feature,
            "tensor_endpoint": tensor_endpoint,
            "temperature": temperature,
            "threads": cores // workers,
            "latency_calls": min(_LATENCY_CALLS, len(probe)) if time_calls else 0,
            "paths": [path for path in sys.path if path],
            "inputs": str(folder / "inputs"),
        }
        probe.save(folder / "inputs")
        self._pool = ThreadPoolExecutor(workers)
        self._started: list[tuple[ArtifactProcess, Future[None]]] = []

    def start(self, variant: str, artifact: Path) -> None:
        """Lets an artifact answer the rows, in the background.

        Args:
            variant: Its variant, which decides the runtime.
            artifact: The file, or the SavedModel's folder.
        """
        folder = self._folder / variant
        folder.mkdir()
        runtime, forbidden = _RUNTIMES.get(variant, _LITERT)
        request = {**self._request, "runtime": runtime, "forbidden": forbidden, "artifact": str(artifact)}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        process = ArtifactProcess(variant, folder, self._rows)
        self._started.append((process, self._pool.submit(process.answer)))

    def ready(self) -> list[str]:
        """Waits until all artifacts have answered the rows.

        Returns:
            The variants whose processes wait for more.
        """
        for _, future in track(self._started, len(self._started), "run artifacts"):
            future.result()
        return [process.variant for process, _ in self._started if process.waits]

    def ask(self, variant: str, probe: Probe) -> FloatArray | None:
        """Asks an artifact that is `ready` about further rows.

        Args:
            variant: Its variant.
            probe: The rows.

        Returns:
            Its probabilities ``(rows, num_classes)``; None when its process has ended, whose error is then
            among the `answers`.
        """
        process = next(process for process, _ in self._started if process.variant == variant)
        with tempfile.TemporaryDirectory(dir=self._folder / variant) as folder:
            probe.save(Path(folder) / "asked")
            return process.ask(Path(folder) / "asked")

    def answers(self) -> dict[str, Answers]:
        """Waits for all artifacts, then times each while the others rest.

        Returns:
            What each artifact answered, by variant.

        Raises:
            OutputError: When one of them has filled the disk.
        """
        self.ready()
        timed = track(self._started, len(self._started), "time artifacts")
        return {process.variant: process.finish() for process, _ in timed}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, future in self._started:
            future.cancel()
            process.stop()
        self._pool.shutdown(wait=True)
