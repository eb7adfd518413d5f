"""Measures how a training runs fastest on this machine, by running parts of it in other ways."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras

from tfapp.data.drawing import draw_rows
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.training.phases import train
from tfapp.training.precision import choose_precision
from tfapp.training.settings import DEFAULT_PHASES, Phase
from tfapp.training.tuning_choice import Chosen, MeasuredPhase, Settings, Way, choose
from tfapp.training.turns import seconds_by_turns

_LOG = logging.getLogger("tfapp")
_ENDLESS = 1_000_000
_LEAST_BATCHES, _MOST_ROWS = 2, 8192
_ROUNDS, _PASSES = 5, 2
_UNLIMITED, _MOST_CACHED = 1e12, 512.0
_FULL = 0.5
_CACHE_STEP = 64.0


@dataclass(frozen=True)
class Tuned:
    """What was measured, and what follows.

    Attributes:
        phases: What was measured of each phase.
        now: The present settings.
        chosen: The fastest settings; the present ones where no others are faster beyond doubt.
    """

    phases: tuple[MeasuredPhase, ...]
    now: Settings
    chosen: Chosen

    @property
    def changes(self) -> dict[str, Any]:
        """The arguments of `train` that should have other values, by name."""
        settings = self.chosen.settings
        return {
            name: getattr(settings, name)
            for name in Settings.__dataclass_fields__
            if getattr(settings, name) != getattr(self.now, name)
        }


def tune_training(
    build: Callable[[], Classifier],
    data: Any,
    stages: Mapping[str, Mapping[str, Any]],
    *,
    batch_sizes: Sequence[int] = (),
    seconds: float = 60.0,
) -> Tuned:
    """Measures precisions, the feature cache and, if asked, batch sizes on a sample of the training rows.

    Each phase is trained by `train` itself, in all ways by turns, on training rows only. Precision is tried
    where the device multiplies bfloat16 faster, the cache where part of the model is frozen and rows are not
    augmented (cached variants would be another training). Neither changes what is learned beyond rounding;
    batch sizes do, so only those that are asked for are tried. One device is measured.

    Args:
        build: Builds the classifier as the training gets it; called once for each precision.
        data: `TextData` or `ImageData`.
        stages: Arguments of `train` for each stage by its name, the same ``batch_size``, ``precision`` and
            ``feature_cache_megabytes`` in all.
        batch_sizes: Further batch sizes to try.
        seconds: About how long to measure, more than 0. Models and data are loaded beforehand; a slow model
            takes longer, for each way is measured three times at least.

    Returns:
        What was measured and chosen.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        TrainingError: When training fails as it stands.
    """
    if any(size < 1 for size in batch_sizes):
        raise ConfigError(f"batch sizes {list(batch_sizes)}: each must be at least 1.")
    first = next(iter(stages.values()))
    now = Settings(
        choose_precision(first["precision"]), first["batch_size"], first["feature_cache_megabytes"]
    )
    precisions = [now.precision]
    if choose_precision("auto") == "mixed_bfloat16":
        precisions += [each for each in ("float32", "mixed_bfloat16") if each != now.precision]
    sizes = list(dict.fromkeys([now.batch_size, *batch_sizes]))
    models = {precision: build() for precision in precisions}
    parts = [
        (name, stage, phase) for name, stage in stages.items() for phase in stage["phases"] or DEFAULT_PHASES
    ]
    began, measured = time.monotonic(), []
    with _quiet():
        for number, (name, stage, phase) in enumerate(parts):
            share = (began + seconds - time.monotonic()) / (len(parts) - number)
            with tempfile.TemporaryDirectory(prefix="tfapp-") as scratch:
                bench = _Bench(models, data, stage, phase, now, Path(scratch))
                measured.append(bench.measure(f"{name}, {phase.title}", precisions, sizes, share))
    room = _FULL * shutil.disk_usage(tempfile.gettempdir()).free / 1e6
    needed = {each.cache_megabytes for each in measured if each.cache_megabytes is not None}
    limits = [now.feature_cache_megabytes, 0.0]
    limits += [math.ceil(size / _CACHE_STEP) * _CACHE_STEP for size in sorted(needed) if size < room]
    chosen = choose(measured, now, precisions=precisions, batch_sizes=sizes, cache_megabytes=limits)
    return Tuned(tuple(measured), now, chosen)


class _Bench:
    """Trains one phase in several ways on a sample of the training rows."""

    def __init__(
        self,
        models: Mapping[str, Classifier],
        data: Any,
        stage: Mapping[str, Any],
        phase: Phase,
        now: Settings,
        scratch: Path,
    ) -> None:
        self._models, self._data, self._stage, self._phase = models, data, stage, phase
        self._now, self._scratch = now, scratch
        self._frozen = next(iter(models.values())).split(phase.train)[0] is not None

    def measure(
        self, title: str, precisions: Sequence[str], sizes: Sequence[int], seconds: float
    ) -> MeasuredPhase:
        """Measures the phase in all ways, for about so many seconds."""
        began = time.monotonic()
        rows, size = len(self._data.train), self._now.batch_size
        # Short trainings tell how large a sample can be, and how large a cache gets.
        probe = min(rows, _LEAST_BATCHES * size)
        caches = (True, False) if self._frozen else (False,)
        tries = {cached: Way(self._now.precision, size, cached) for cached in caches}
        taken, failed = seconds_by_turns(
            {way: partial(self._train, way, probe) for way in tries.values()},
            until=0.0,
            passes=1,
            least_rounds=1,
        )
        if failed:
            raise next(iter(failed.values()))
        megabytes = self._cache_megabytes(tries[self._frozen], probe)
        starting = (time.monotonic() - began) / len(tries)
        usual = megabytes is not None and megabytes <= self._now.feature_cache_megabytes
        ways = [Way(precision, size, usual) for precision in precisions for size in sizes]
        if megabytes is not None and self._stage.get("augment") is None:
            # What filling a cache takes, or what a cache would save, differs little between batch sizes.
            ways += [Way(precision, size, not usual) for precision in precisions]
        of_a_row = {cached: taken[way][0] / probe for cached, way in tries.items()}
        of_all = sum(of_a_row[way.cached] for way in ways)
        left = seconds - (time.monotonic() - began) - starting * len(ways)
        count = int(max(left, 0.0) / (of_all * (_ROUNDS * _PASSES + 1)))
        sample = min(rows, max(min(count, self._most_rows(megabytes)), _LEAST_BATCHES * max(sizes)))
        trainings = {way: partial(self._train, way, sample) for way in ways}
        passed, failed = seconds_by_turns(trainings, until=began + seconds, passes=_PASSES)
        problems = {way: str(error) for way, error in failed.items()}
        return MeasuredPhase(title, self._phase.epochs, rows, sample, megabytes, passed, problems)

    def _train(self, way: Way, rows: int, callback: keras.callbacks.Callback) -> None:
        source = self._stage.get("source")
        options = {
            **self._stage,
            "phases": [replace(self._phase, epochs=_ENDLESS)],
            "batch_size": way.batch_size,
            "precision": way.precision,
            "feature_cache_megabytes": _UNLIMITED if way.cached else 0.0,
            "feature_dir": self._folder(way, rows),
            "monitor": "loss",
            "keep_best": False,
            "patience": None,
            "verbose": False,
            "callbacks": [callback],
        }
        if source is not None:
            options["source"] = replace(source, data=_sample(source.data, rows), alpha=source.alphas[0])
        train(self._models[way.precision], _sample(self._data, rows), **options)

    def _folder(self, way: Way, rows: int) -> Path:
        return self._scratch / f"{way.precision}-{rows}"

    def _most_rows(self, megabytes: float | None) -> int:
        """Rows that a sample may have, so that its features do not fill the disk."""
        most = _MOST_ROWS if megabytes is None else _MOST_CACHED / megabytes * self._encoded_rows()
        return min(_MOST_ROWS, int(most))

    def _cache_megabytes(self, way: Way, rows: int) -> float | None:
        """Size of the features of all rows that are encoded; None where there are none."""
        files = (path for path in self._folder(way, rows).rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        tasks = 1 if self._stage.get("source") is None else 2
        return size * self._encoded_rows() / (tasks * rows) or None

    def _encoded_rows(self) -> int:
        """Training and validation rows, and training rows of a source task."""
        source = self._stage.get("source")
        beside = 0 if source is None else len(source.data.train)
        return len(self._data.train) + len(self._data.validation) + beside


def _sample(data: Any, rows: int) -> Any:
    """The data with some of their training rows, and no others."""

    def part(split: Any, count: int) -> Any:
        features, labels, places = draw_rows(split, count)
        if data.kind == "text":
            return replace(split, texts=features, labels=labels)
        digests = tuple(split.digests[place] for place in places)
        return replace(split, images=features, labels=labels, digests=digests)

    return replace(
        data, train=part(data.train, rows), validation=part(data.validation, 0), test=part(data.test, 0)
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the lines of every epoch from the log."""
    level = _LOG.level
    _LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _LOG.setLevel(level)
