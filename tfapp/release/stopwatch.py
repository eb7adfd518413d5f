"""Times one artifact in a fresh process: its first answer, then call after call, and the memory it takes.

Like `runner.py` beside it, this script is started by path with ``python -I`` and
never imports tfapp. It reads ``request.json`` from the folder that is its argument, says on standard output
when it has answered for the first time, and writes what it found to ``result.json``; an error becomes
``{"error": ...}`` there and exit status 1.
"""

from __future__ import annotations

import importlib.machinery
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FIRST_ANSWER = "tfapp-stopwatch: first answer"
_WARM_UP_CALLS = 5
_WARM_UP_SECONDS = 1.0
_FEWEST_CALLS = 10


def main(folder: Path) -> int:
    """Answers once, and then as often as the request says.

    Args:
        folder: Where the request lies, and the result goes.

    Returns:
        The exit status.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sys.path.extend(path for path in request["paths"] if path not in sys.path)
    runtimes = _runtimes()
    facts: dict[str, Any] = {}
    status = 0
    try:
        artifact = runtimes.RUNTIMES[request["runtime"]](request, request["threads"])
        inputs = runtimes.Inputs(request["inputs"])
        ask = _asking(artifact, inputs, request["classes"])
        rows = len(inputs.features)
        ask([rows // 2])
        print(FIRST_ANSWER, flush=True)  # noqa: T201
        facts = {
            "takes_features": artifact.takes_features,
            "cases": [_case(ask, batch, rows, artifact.most_rows, request) for batch in request["batches"]],
        }
        runtimes.check_alone(request)
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        status = 1
    (folder / "result.json").write_text(json.dumps(facts), encoding="utf-8")
    return status


def _runtimes() -> Any:
    """Loads the file beside this script, which is in no package here."""
    loader = importlib.machinery.SourceFileLoader("runtimes", str(Path(__file__).with_name("runtimes.py")))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def _asking(artifact: Any, inputs: Any, classes: list[str]) -> Callable[[list[int]], list[str]]:
    """Gives a call from numbers of features to the names of their classes, whatever it answers with."""

    def ask(rows: list[int]) -> list[str]:
        answered = artifact.call(inputs, rows)
        if answered.ndim == 1:
            return [str(name) for name in answered]
        return [classes[index] for index in answered.argmax(axis=1)]

    return ask


def _case(
    ask: Callable[[list[int]], list[str]],
    batch: int,
    rows: int,
    most_rows: int | None,
    request: dict[str, Any],
) -> dict[str, Any]:
    """Times calls with one number of rows, or says why there can be none."""
    if most_rows is not None and batch > most_rows:
        return {"batch": batch, "reason": f"it takes {most_rows} row{'s' if most_rows > 1 else ''} at a time"}
    asked = 0

    def call() -> float:
        nonlocal asked
        chosen = [(asked + number) % rows for number in range(batch)]
        asked += batch
        started = time.perf_counter()
        ask(chosen)
        return time.perf_counter() - started

    _repeat(call, _WARM_UP_CALLS, _WARM_UP_SECONDS, fewest=2)
    seconds = _repeat(call, request["calls"], request["seconds"], fewest=_FEWEST_CALLS)

    import numpy

    p50, p95, p99 = (float(value) * 1e3 for value in numpy.percentile(seconds, [50, 95, 99]))
    return {"batch": batch, "calls": len(seconds), "p50": p50, "p95": p95, "p99": p99, "peak_bytes": _peak()}


def _repeat(call: Callable[[], float], most: int, seconds: float, *, fewest: int) -> list[float]:
    """Calls until it has been done often enough, or has taken long enough."""
    times: list[float] = []
    while len(times) < most and (len(times) < fewest or sum(times) < seconds):
        times.append(call())
    return times


def _peak() -> int | None:
    """The most memory that this process had resident, in bytes; None where the system does not tell.

    What `getrusage` says would on Linux be that of the process that has started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
