"""Benchmark of a release: how fast each artifact starts and answers, its memory, and how right it is."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfapp import __version__
from tfapp.disk import writing
from tfapp.errors import ConfigError
from tfapp.machine import processor_name, usable_cores
from tfapp.progress import track
from tfapp.release.bench_report import ArtifactBench, BenchReport, Timing
from tfapp.release.golden import Golden
from tfapp.release.integrity import check_release
from tfapp.release.layout import GOLDEN_FILE
from tfapp.release.probe import Probe, RawFeatures
from tfapp.release.processes import ArtifactRunner, runtime_of
from tfapp.release.script_process import ScriptProcess
from tfapp.release.stopwatch import FIRST_ANSWER
from tfapp.release.versions import version_folder

_logger = logging.getLogger("tfapp")
_STOPWATCH = Path(__file__).with_name("stopwatch.py")
_TIMEOUT = 900.0
_SECONDS = 4.0
_BUSY = 0.5


def bench(
    release_dir: str | Path,
    data: str | Path | None = None,
    *,
    threads: Sequence[int] | None = None,
    batches: Sequence[int] = (1, 8),
    calls: int = 200,
    feature_column: str | None = None,
    label_column: str | None = None,
    manifest_sha256: str | None = None,
) -> BenchReport:
    """Measures every artifact of a release, one after another, each alone in a fresh process.

    Artifacts that take raw features are measured from a text or an image file to a class name; others from
    the model's tensors, made before. Files of fixed length get padded tensors, others none longer than their
    batch needs. Of a text that is split into windows all are answered in one call.

    Args:
        release_dir: A version folder, or ``saved_models/<name>`` for its newest version.
        data: Labelled rows to ask about, and to measure accuracy on; when None, the release's golden vectors
            are asked about, and accuracies are those of the manifest.
        threads: Threads to answer with, each 1 or more and no more than there are cores; when None, 1, and 2
            where there are as many.
        batches: Rows of a call, each 1 or more.
        calls: Most calls to time for each number of threads and rows; they end after 4 s if there are 10.
        feature_column: The column of texts or paths in ``data``; that of the release's workflow when None.
        label_column: The column of labels in ``data``; that of the release's workflow when None.
        manifest_sha256: The sha256 of the release's ``manifest.json``, printed when it was released; any if
            None, and the report then notes that the origin is not proven.

    Returns:
        What was measured.

    Raises:
        ConfigError: When ``threads``, ``batches`` or ``calls`` cannot be used, or ``manifest_sha256`` is no
            sha256.
        ReleaseError: When there is no release, it is another than is meant, or its files are damaged.
        DataError: When ``data`` cannot be read or is of other classes.
        OutputError: When the disk for temporary files is full.
    """
    cores = usable_cores()
    threads = _checked("threads", threads or [count for count in (1, 2) if count <= cores], most=cores)
    batches = _checked("batches", batches)
    _checked("calls", [calls])
    busy = _load()
    directory = version_folder(release_dir)
    manifest = check_release(directory, manifest_sha256=manifest_sha256)
    golden = Golden.load(directory / GOLDEN_FILE)
    artifacts = {row["variant"]: row for row in manifest["artifacts"]}
    with (
        writing(Path(tempfile.gettempdir()), full="free some space or set TMPDIR to another folder"),
        tempfile.TemporaryDirectory(prefix="tfapp-bench-") as scratch,
    ):
        folder = Path(scratch)
        if data is None:
            rows = f"the release's {len(golden.inputs)} golden vectors"
            accuracies = {variant: row["accuracy"] for variant, row in artifacts.items()}
            measured_on = f"{next(iter(artifacts.values()))['examples']:,} rows, as in the manifest"
            golden.probe().save(folder / "inputs")
        else:
            split, rows = _split(manifest, golden, data, feature_column, label_column)
            accuracies = _accuracies(directory, artifacts, golden, split, folder)
            measured_on = f"{len(split):,} rows of the data given"
        request = {
            "feature": golden.feature,
            "tensor_endpoint": golden.tensor_endpoint,
            "temperature": golden.temperature,
            "classes": golden.classes,
            "paths": [path for path in sys.path if path],
            "inputs": str(folder / "inputs"),
            "batches": batches,
            "calls": calls,
            "seconds": _SECONDS,
        }
        measured = [
            _measure(
                row, directory, folder, request, threads, accuracy=accuracies[variant], feature=golden.feature
            )
            for variant, row in track(artifacts.items(), len(artifacts), "time artifacts")
        ]
    return BenchReport(
        name=manifest["name"],
        version=manifest["version"],
        tfapp_version=__version__,
        machine={
            "processor": processor_name(),
            "cores": cores,
            "system": platform.platform(),
            "load_before": busy,
        },
        asked=rows,
        accuracy_on=measured_on,
        origin_proven=manifest_sha256 is not None,
        artifacts=tuple(measured),
    )


def _checked(name: str, values: Sequence[int], *, most: int | None = None) -> list[int]:
    kept = sorted(set(values))
    if not kept or kept[0] < 1:
        raise ConfigError(f"{name} = {list(values)}: numbers of 1 or more are needed.")
    if most is not None and kept[-1] > most:
        raise ConfigError(
            f"{name} = {list(values)}: this process may use {most} core{'s' if most > 1 else ''}, and more "
            "threads than that would wait for each other."
        )
    return kept


def _load() -> float | None:
    """Returns how many processes were busy in the last minute; warns where they will disturb."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > _BUSY * usable_cores():
        _logger.warning(
            "bench: this machine is busy (load %.1f on %d cores): what is measured now is slower than it "
            "need be",
            load,
            usable_cores(),
        )
    return round(load, 2)


def _split(
    manifest: Mapping[str, Any], golden: Golden, data: str | Path, feature: str | None, label: str | None
) -> tuple[Any, str]:
    from tfapp.release.rows_at_hand import describe_rows, read_rows

    columns = {"feature_column": feature, "label_column": label}
    split = read_rows(data, golden.classes, manifest, feature=golden.feature, **columns)
    return split, describe_rows(split, data, manifest)


def _accuracies(
    directory: Path, artifacts: Mapping[str, Any], golden: Golden, split: Any, folder: Path
) -> dict[str, float | None]:
    """Lets every artifact answer all rows, which stay in the folder ``inputs``."""
    from tfapp.release.released_model import load_preprocessor

    tensors = folder / "tensors"
    tensors.mkdir()
    preprocessor = load_preprocessor(directory, golden)
    probe = Probe.from_features(
        preprocessor, RawFeatures(split.features), inputs=golden.tensors, folder=tensors
    )
    _logger.info("bench: %d rows to every artifact, for its accuracy", len(probe))
    with ArtifactRunner.of_release(folder, golden, probe) as runner:
        for variant, row in artifacts.items():
            runner.start(variant, directory / row["path"])
        answers = runner.answers()
    return {
        variant: None
        if answer.error
        else float(np.mean(answer.probabilities.argmax(axis=1) == np.asarray(split.labels)))
        for variant, answer in answers.items()
    }


def _measure(
    row: Mapping[str, Any],
    directory: Path,
    folder: Path,
    request: Mapping[str, Any],
    threads: Sequence[int],
    *,
    accuracy: float | None,
    feature: str,
) -> ArtifactBench:
    """Measures one artifact with each number of threads."""
    variant = row["variant"]
    starts: list[float] = []
    timings: list[Timing] = []
    takes_features = False
    error = None
    # Started twice with the fewest threads: the first start also fills the system's file cache.
    for number, count in enumerate([threads[0], *threads]):
        place = folder / f"time-{variant}-{number}"
        place.mkdir()
        asked = {
            **request,
            **runtime_of(variant),
            "artifact": str(directory / row["path"]),
            "threads": count,
            "batches": request["batches"] if number else [],
        }
        (place / "request.json").write_text(json.dumps(asked), encoding="utf-8")
        facts, error, seconds = _time(place)
        if error is not None:
            _logger.warning("bench: %s %s", variant, error)
            break
        if count == threads[0]:
            starts.append(seconds)
        takes_features = facts["takes_features"]
        timings += [Timing(threads=count, **case) for case in facts["cases"]]
    if error is None:
        _logger.info("bench: %s, first answer after %.2f s", variant, min(starts))
    return ArtifactBench(
        variant=variant,
        path=row["path"],
        bytes=row["bytes"],
        accuracy=accuracy,
        takes=_TAKES[feature][0 if takes_features else 1],
        takes_features=takes_features,
        start_s=min(starts) if error is None else None,
        timings=tuple(timings) if error is None else (),
        error=error,
    )


_TAKES = {"text": ("text", "token ids"), "image_bytes": ("image file", "pixels")}


def _time(place: Path) -> tuple[dict[str, Any], str | None, float]:
    """Runs the stopwatch: what it found, why that cannot be used, and the seconds to the first answer."""
    process = ScriptProcess(_STOPWATCH, place, _TIMEOUT)
    try:
        started = time.monotonic()
        process.start()
        process.says(FIRST_ANSWER)
        seconds = time.monotonic() - started
        return *process.end(), seconds
    finally:
        process.stop()
