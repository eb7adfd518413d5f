"""Runs one artifact in a fresh process, as somebody would who has nothing but the files.

This script is started by path with ``python -I`` and imports only what its runtime needs, never tfapp. It
reads ``request.json`` from the folder that is its argument, answers every row of the inputs, says so on
standard output, and waits for lines on standard input: at ``ask FOLDER`` it answers the inputs of that
folder into ``outputs.npz`` there, at any other line it times single calls and ends. What it found is in
``result.json`` and ``outputs.npz``. An error becomes ``{"error": ...}`` in ``result.json`` and exit status 1;
on a full disk, where nothing can be written any more, exit status 28 says so.
"""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ANSWERED = "tfapp-runner: answered"
ASK = "ask "
DISK_FULL = 28


def main(folder: Path, *, only_latency: bool) -> int:
    """Answers the rows of a request, then times single calls.

    Args:
        folder: Where request and inputs lie, and results go.
        only_latency: The rows were answered by this process before it started itself anew.

    Returns:
        The exit status.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    # Isolated mode hides user and PYTHONPATH installations, in which the runtimes may lie.
    sys.path.extend(path for path in request["paths"] if path not in sys.path)
    result_file = folder / "result.json"
    try:
        runtimes = _runtimes()
        threads = 1 if only_latency else request["threads"]
        artifact = runtimes.RUNTIMES[request["runtime"]](request, threads)
        inputs = runtimes.Inputs(request["inputs"])
        if not only_latency:
            facts = _answer(artifact, inputs, folder)
            runtimes.check_alone(request)
            facts["libraries"] = {name: _version(name) for name in artifact.libraries}
            result_file.write_text(json.dumps(facts), encoding="utf-8")
            print(ANSWERED, flush=True)  # noqa: T201
            while (line := sys.stdin.readline()).startswith(ASK):
                asked = Path(line.removeprefix(ASK).rstrip("\n"))
                further = runtimes.Inputs(str(asked))
                _answer(artifact, further, asked)
                further.close()
                print(ANSWERED, flush=True)  # noqa: T201
            if request["latency_calls"] and threads > 1:
                # A runtime keeps the number of threads that it started with.
                os.execv(sys.executable, [sys.executable, "-I", __file__, str(folder), "latency"])
        facts = json.loads(result_file.read_text(encoding="utf-8"))
        facts["latency_ms"] = _latency(artifact, inputs, request)
        result_file.write_text(json.dumps(facts), encoding="utf-8")
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return DISK_FULL
        message = " ".join(str(error).split())
        if len(message) > 500:
            message = f"{message[:200]} ... {message[-280:]}"
        result_file.write_text(json.dumps({"error": f"{type(error).__name__}: {message}"}), encoding="utf-8")
        return 1
    return 0


def _version(name: str) -> str:
    """The version of a library that is loaded."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # Another build of it, such as tensorflow-tpu, brings the same module.
        return str(sys.modules[name.replace("-", "_")].__version__)


def _runtimes() -> Any:
    """Loads the file beside this script, which is in no package here."""
    loader = importlib.machinery.SourceFileLoader("runtimes", str(Path(__file__).with_name("runtimes.py")))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def _answer(artifact: Any, inputs: Any, folder: Path) -> dict[str, Any]:
    """Answers rows into ``outputs.npz`` of a folder, and returns what there is to say of them."""
    import numpy as np

    outputs, facts = artifact.answer(inputs)
    np.savez(folder / "outputs.npz", **outputs)
    return dict(facts)


def _latency(artifact: Any, inputs: Any, request: dict[str, Any]) -> Any:
    """Times calls about one feature each, spread over all of them, after two to warm up."""
    import numpy as np

    calls = request["latency_calls"]
    if not calls:
        return None
    features = [index * len(inputs.features) // calls for index in range(calls)]
    times: list[float] = []
    for number in [*features[:2], *features]:
        start = time.perf_counter()
        artifact.call(inputs, [number])
        times.append((time.perf_counter() - start) * 1e3)
    p50, p95 = (float(value) for value in np.percentile(times[2:], [50, 95]))
    return {"p50": p50, "p95": p95, "threads": 1, "batch": 1}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), only_latency=len(sys.argv) > 2))
