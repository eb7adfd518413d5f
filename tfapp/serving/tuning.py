"""Measures how a server of this machine should join requests, and writes it down."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from google.protobuf import text_format

from tfapp.disk import remove_unfinished, replace_file, writing
from tfapp.errors import ConfigError, ReleaseError
from tfapp.release.golden import Golden
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.serving_files import BATCHING_FILE, FOLDER
from tfapp.release.versions import version_folder
from tfapp.serving.load import drive, post
from tfapp.wire.configs import BatchingParameters, read_config

SIZES = (1, 8, 16, 32, 64)
TIMEOUTS = (0, 1000, 5000)
CONNECTIONS = (1, 4, 16, 64)
_NEAR = 0.03
_START_SECONDS, _END_SECONDS = 300.0, 60.0
_ENQUEUED = 1024
_TUNING_FILE = "tuning.json"
_SERVING = re.compile(r"^Serving version \d+ at http://[^ ]*:(\d+)/")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One server's answers to one load.

    Attributes:
        max_batch_size: Rows of a batch.
        batch_timeout_micros: Microseconds that a batch waits for more rows.
        connections: Connections with a request in flight each.
        rows_per_second: Texts or images answered a second.
        p50_ms: Median latency; None where nothing was answered.
        p99_ms: Latency that one request of a hundred exceeds; None where nothing was answered.
        failures: Requests that were not answered.
    """

    max_batch_size: int
    batch_timeout_micros: int
    connections: int
    rows_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    failures: int

    @property
    def batching(self) -> tuple[int, int]:
        """Size and timeout."""
        return self.max_batch_size, self.batch_timeout_micros


@dataclass(frozen=True)
class Tuned:
    """What was measured, and what follows.

    Attributes:
        max_batch_size: The size that was chosen.
        batch_timeout_micros: The timeout that was chosen.
        rows: Everything that was measured.
        path: The ``batching.config`` that says so.
    """

    max_batch_size: int
    batch_timeout_micros: int
    rows: tuple[Measured, ...]
    path: Path


def tune_serving(
    release: str | Path,
    *,
    texts: Sequence[str] = (),
    sizes: Sequence[int] = SIZES,
    timeouts: Sequence[int] = TIMEOUTS,
    connections: Sequence[int] = CONNECTIONS,
    seconds: float = 4.0,
) -> Tuned:
    """Loads servers on loopback, each with other batches, and writes the best ``batching.config``.

    Sizes are tried without a timeout first, then timeouts with the best of them. Of what is within 3 % of the
    most rows a second at the most connections, that with the lowest p99 at the next smaller number of
    connections is chosen: a server is rarely at its limit, and waits are felt always. What left a request
    unanswered is not chosen, and not loaded further. Other fields of an existing file stay, but for comments.

    Args:
        release: A version folder, or ``saved_models/<name>`` for its newest version.
        texts: Texts like those that will be asked about; the release's golden vectors when empty, which are
            of all lengths.
        sizes: Sizes of batches to try, each 1 or more.
        timeouts: Microseconds to try.
        connections: Rising numbers of connections.
        seconds: How long each is loaded.

    Returns:
        What was measured and chosen. Beside the config, ``tuning.json`` holds the figures.

    Raises:
        ReleaseError: When a server does not start, every setting leaves requests unanswered, or the present
            ``batching.config`` cannot be read.
        ConfigError: When texts are given for a release that classifies images.
        OutputError: When the files cannot be written.
    """
    directory = version_folder(release)
    folder = directory.parent / FOLDER
    parameters = BatchingParameters()
    if (folder / BATCHING_FILE).exists():
        read_config(folder / BATCHING_FILE, parameters)
    requests = _requests(directory, texts)
    rows: list[Measured] = []
    tried: list[tuple[int, int]] = []

    def measure(size: int, timeout: int) -> None:
        if (size, timeout) in tried:
            return
        tried.append((size, timeout))
        with _server(directory, size, timeout) as port:
            for count in connections:
                rows.append(_measured(port, requests, (size, timeout), count, seconds))
                _logger.info("measured %s", rows[-1])
                if rows[-1].failures:
                    break

    for size in sizes:
        measure(size, min(timeouts))
    best = _best(rows, connections)
    if best[0] > 1:
        for timeout in timeouts:
            measure(best[0], timeout)
    best = _best(rows, connections)
    path = folder / BATCHING_FILE
    with writing(folder):
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder, (BATCHING_FILE, _TUNING_FILE))
        replace_file(path, _config(best, rows, parameters))
        replace_file(folder / _TUNING_FILE, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return Tuned(*best, tuple(rows), path)


def _requests(directory: Path, texts: Sequence[str]) -> list[bytes]:
    path = f"/v1/models/{directory.parent.name}:predict"
    golden = Golden.load(directory / GOLDEN_FILE)
    if texts:
        if golden.feature != "text":
            raise ConfigError(
                f"{directory} classifies images, and no texts: leave out --file (or texts=... "
                "in Python); its golden images are asked about then."
            )
        return [post(path, {"instances": [text]}) for text in texts]
    features = golden.probe().features
    values = [{"b64": base64.b64encode(feature).decode()} for feature in features]
    return [post(path, {"instances": [value]}) for value in values]


def _measured(
    port: int, requests: Sequence[bytes], batching: tuple[int, int], connections: int, seconds: float
) -> Measured:
    async def load() -> Any:
        await drive("127.0.0.1", port, requests, connections=connections, seconds=seconds / 4)
        return await drive("127.0.0.1", port, requests, connections=connections, seconds=seconds)

    made = asyncio.run(load())
    if made.failures:
        _logger.warning("max_batch_size %d, timeout %d us: failed %s", *batching, dict(made.failures))
    p50, p99 = (made.milliseconds(percent) if made.latencies else None for percent in (50, 99))
    return Measured(*batching, connections, made.rate, p50, p99, sum(made.failures.values()))


def _best(rows: Sequence[Measured], connections: Sequence[int]) -> tuple[int, int]:
    most, usual = max(connections), sorted(connections)[max(0, len(connections) - 2)]
    failed = {row.batching for row in rows if row.failures or row.p99_ms is None}
    full = {row.batching: row for row in rows if row.connections == most and row.batching not in failed}
    felt = {row.batching: row.p99_ms for row in rows if row.connections == usual and row.p99_ms is not None}
    if not full:
        raise ReleaseError(
            "every setting left requests unanswered, as the warnings above say; see that the release answers "
            "under `tfapp serve`, and that nothing else loads this machine."
        )
    enough = (1 - _NEAR) * max(row.rows_per_second for row in full.values())
    return min((key for key in full if full[key].rows_per_second >= enough), key=lambda key: felt[key])


def _config(best: tuple[int, int], rows: Sequence[Measured], parameters: Any) -> str:
    """Writes what was measured, and the ``BatchingParameters`` that there were with the best of it."""
    lines = ["# Measured by `tfapp tune-serving` on this machine; the figures are also in tuning.json.", "#"]
    lines.append("# max_batch_size  timeout us  connections   rows/s   p50 ms   p99 ms  failures")
    for row in rows:
        p50, p99 = ("-" if value is None else f"{value:.1f}" for value in (row.p50_ms, row.p99_ms))
        lines.append(
            f"# {row.max_batch_size:14d}  {row.batch_timeout_micros:10d}  {row.connections:11d}  "
            f"{row.rows_per_second:7.0f}  {p50:>7}  {p99:>7}  {row.failures:8d}"
        )
    size, parameters.batch_timeout_micros.value = best
    parameters.max_batch_size.value = size
    if not parameters.HasField("max_enqueued_batches"):
        parameters.max_enqueued_batches.value = _ENQUEUED
    # TF Serving refuses sizes beyond the largest, and a list that does not end with it; only where it splits
    # large batches is it max_execution_batch_size.
    if parameters.HasField("max_execution_batch_size"):
        executed = parameters.max_execution_batch_size.value = min(
            size, parameters.max_execution_batch_size.value
        )
        if parameters.enable_large_batch_splitting.value:
            size = executed
    if parameters.allowed_batch_sizes:
        smaller = [allowed for allowed in parameters.allowed_batch_sizes if allowed < size]
        parameters.allowed_batch_sizes[:] = [*smaller, size]
    return "\n".join([*lines, text_format.MessageToString(parameters)])


@contextlib.contextmanager
def _server(directory: Path, size: int, timeout: int) -> Iterator[int]:
    """Serves a version with given batches; yields the port."""
    command = [sys.executable, "-m", "tfapp", "serve", str(directory), "--port", "0", "--no-grpc"]
    command += ["--max-batch-size", str(size), "--batch-timeout-micros", str(timeout)]
    # The load that follows sends no token.
    environment = {name: value for name, value in os.environ.items() if name != "TFAPP_TOKEN"}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            yield _port(process, log)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()


def _port(process: subprocess.Popen[bytes], log: IO[str]) -> int:
    deadline = time.monotonic() + _START_SECONDS
    for pause in itertools.repeat(0.1):
        log.seek(0)
        lines = log.read().splitlines()
        found = next((match for line in lines if (match := _SERVING.match(line))), None)
        if found is not None:
            return int(found[1])
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(pause)
    raise ReleaseError(f"the server did not start: {' '.join(lines[-3:])}")
