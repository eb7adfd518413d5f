"""Measures how a training runs fastest on this machine, by running parts of it in other ways."""

from __future__ import annotations

import itertools
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
_PROBE_BATCHES, _LEAST_BATCHES, _MOST_ROWS = 4, 4, 8192
_ROUNDS, _PASSES_A_ROUND = 5, 2
_UNLIMITED = 1e12
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
        rows = len(self._data.train)
        # One short training tells how large a sample can be, and how large a cache gets.
        probe = min(rows, _PROBE_BATCHES * self._now.batch_size)
        current = Way(self._now.precision, self._now.batch_size, self._frozen)
        took, failed = seconds_by_turns(
            {current: partial(self._train, current, probe)}, until=0.0, least_rounds=1
        )
        if failed:
            raise failed[current]
        megabytes = self._cache_megabytes(current, probe)
        ways = [Way(*way) for way in itertools.product(precisions, sizes, self._caches(megabytes))]
        starting = time.monotonic() - began
        passes = len(ways) * (_ROUNDS * _PASSES_A_ROUND + 1)
        left = seconds - starting * (1 + len(ways))
        count = int(max(left, 0.0) / passes / took[current][0] * probe)
        sample = min(rows, max(count, _LEAST_BATCHES * max(sizes)), _MOST_ROWS)
        trainings = {way: partial(self._train, way, sample) for way in ways}
        passed, failed = seconds_by_turns(trainings, until=began + seconds)
        problems = {way: str(error) for way, error in failed.items()}
        return MeasuredPhase(title, self._phase.epochs, rows, sample, megabytes, passed, problems)

    def _caches(self, megabytes: float | None) -> tuple[bool, ...]:
        """Whether features are to be cached, not to be, or both to be tried."""
        if megabytes is None:
            return (False,)
        if self._stage.get("augment") is not None:
            return (megabytes <= self._now.feature_cache_megabytes,)
        return (True, False)

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
        return self._scratch / f"{way.precision}-{way.batch_size}-{way.cached}-{rows}"

    def _cache_megabytes(self, way: Way, rows: int) -> float | None:
        """Size of the features of all training and validation rows; None where there are none."""
        files = (path for path in self._folder(way, rows).rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        return size * (len(self._data.train) + len(self._data.validation)) / rows or None


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
