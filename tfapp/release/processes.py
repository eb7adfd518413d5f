"""Fresh processes that run artifacts: at most a few at a time, and the timing of each alone."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tfapp.machine import usable_cores
from tfapp.progress import track
from tfapp.release.answers import Answers, FloatArray
from tfapp.release.golden import Golden
from tfapp.release.probe import Probe
from tfapp.release.runner import ANSWERED, ASK
from tfapp.release.script_process import ScriptProcess

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


def runtime_of(variant: str) -> dict[str, Any]:
    """Tells what runs a variant.

    Args:
        variant: Its name.

    Returns:
        ``runtime``, its name in `runtimes.py`, and ``forbidden``, modules that must not be loaded beside.
    """
    runtime, forbidden = _RUNTIMES.get(variant, ("litert", _FOREIGN))
    return {"runtime": runtime, "forbidden": forbidden}


class ArtifactProcess(ScriptProcess):
    """One artifact in its own process: it answers all rows, then waits to be timed."""

    def __init__(self, variant: str, folder: Path, rows: int) -> None:
        super().__init__(_RUNNER, folder, _SECONDS_TO_START + _SECONDS_A_ROW * rows)
        self.variant = variant
        self._answered = False

    def answer(self) -> None:
        """Starts the process and waits until it has answered all rows, or has ended."""
        started = time.monotonic()
        self.start()
        self._answered = self.says(ANSWERED)
        if self._answered:
            _logger.info("verify: %s has answered in %.1f s", self.variant, time.monotonic() - started)

    def ask(self, folder: Path) -> FloatArray | None:
        """Asks the waiting process about further rows.

        Args:
            folder: The rows, as a probe saves them.

        Returns:
            Probabilities ``(rows, num_classes)``; None when the process has ended or cannot answer.
        """
        if self.tell(f"{ASK}{folder}") and self.says(ANSWERED):
            return _probabilities(folder / "outputs.npz")
        return None

    def finish(self) -> Answers:
        """Lets the process time its calls, and collects what it has written.

        Returns:
            Its answers, or the error that took their place.

        Raises:
            OutputError: When it has filled the disk.
        """
        facts, problem = self.end("go\n")
        if problem is not None:
            return Answers(error=problem)
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

    @property
    def waits(self) -> bool:
        """Whether the process is there, and has not ended with an error."""
        return self._answered and self.runs


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
        cores = usable_cores()
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

    @classmethod
    def of_release(
        cls, folder: Path, golden: Golden, probe: Probe | None = None, *, time_calls: bool = False
    ) -> Self:
        """Runs artifacts of a release, of which the golden vectors tell all that is to be known.

        Args:
            folder: A folder for requests and results; the rows are written into it.
            golden: The release's golden vectors.
            probe: The rows; those of the golden vectors when None.
            time_calls: Whether to measure latencies.
        """
        return cls(
            folder,
            golden.probe() if probe is None else probe,
            feature=golden.feature,
            tensor_endpoint=golden.tensor_endpoint,
            temperature=golden.temperature,
            time_calls=time_calls,
        )

    def start(self, variant: str, artifact: Path) -> None:
        """Lets an artifact answer the rows, in the background.

        Args:
            variant: Its variant, which decides the runtime.
            artifact: The file, or the SavedModel's folder.
        """
        folder = self._folder / variant
        folder.mkdir()
        request = {**self._request, **runtime_of(variant), "artifact": str(artifact)}
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
