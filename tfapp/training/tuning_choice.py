"""Which settings are the fastest for a whole training, by what was measured of each phase."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

LEAST_GAIN = 0.03
"""Share of the time that other settings must save."""
_NEAR = 0.02
_FASTER_ROUNDS = 0.8


@dataclass(frozen=True)
class Way:
    """How a phase may be trained.

    Attributes:
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        batch_size: Rows a batch.
        cached: Whether features of what is frozen are cached; False where nothing is.
    """

    precision: str
    batch_size: int
    cached: bool = False


@dataclass
class MeasuredPhase:
    """What was measured of a phase.

    Attributes:
        title: The phase in a word or two.
        epochs: Its epochs.
        rows: Training rows of an epoch.
        sample: Rows of a measured pass.
        cache_megabytes: Size of all its cached features in MB; None where nothing can be cached.
        seconds: Seconds of each round's pass by how it was trained.
        failed: What kept others from being measured.
    """

    title: str
    epochs: int
    rows: int
    sample: int
    cache_megabytes: float | None = None
    seconds: dict[Way, list[float]] = field(default_factory=dict)
    failed: dict[Way, str] = field(default_factory=dict)

    def of_training(self, way: Way) -> list[float] | None:
        """Seconds of the whole phase by each round, the filling of a cache included; None if not known.

        Filling a cache computes the frozen part of each row once, which is what a pass without it takes more.
        """
        passes = self.seconds.get(way)
        if passes is None:
            return None
        scale = self.rows / self.sample
        online = [
            taken
            for other, taken in self.seconds.items()
            if way.cached and other.precision == way.precision and not other.cached
        ]
        filling = (
            [max(0.0, other - own) for other, own in zip(online[0], passes, strict=False)]
            if online
            else [0.0] * len(passes)
        )
        return [scale * (fill + self.epochs * own) for fill, own in zip(filling, passes, strict=False)]


@dataclass(frozen=True)
class Settings:
    """Settings of a training that can be chosen for speed.

    Attributes:
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        batch_size: Rows a batch.
        feature_cache_megabytes: Largest feature cache in MB.
    """

    precision: str
    batch_size: int
    feature_cache_megabytes: float

    def way(self, phase: MeasuredPhase) -> Way:
        """How a phase is trained under them."""
        size = phase.cache_megabytes
        cached = size is not None and size <= self.feature_cache_megabytes
        return Way(self.precision, self.batch_size, cached)

    def changed(self, now: Settings) -> int:
        """How many of them differ."""
        return sum(getattr(self, name) != getattr(now, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True)
class Chosen:
    """The settings that were chosen.

    Attributes:
        settings: The settings; those of now where no others are faster beyond doubt.
        speed_up: Time of the whole training now, divided by that under the chosen settings.
    """

    settings: Settings
    speed_up: float = 1.0


def choose(
    phases: Sequence[MeasuredPhase],
    now: Settings,
    *,
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    cache_megabytes: Sequence[float],
) -> Chosen:
    """Chooses the settings with the shortest training, if they are faster beyond doubt.

    They must save 3 % of the time in the median over the rounds, and be faster in four rounds of five. Of
    what is within 2 % of the shortest, that with the fewest changes is taken.

    Args:
        phases: What was measured.
        now: The present settings.
        precisions: Precisions to choose from.
        batch_sizes: Batch sizes to choose from.
        cache_megabytes: Limits of the cache to choose from.

    Returns:
        The settings, and how much faster they are.
    """
    before = _totals(phases, now)
    if before is None:
        return Chosen(now)
    better: list[tuple[float, Settings]] = []
    for each in itertools.starmap(Settings, itertools.product(precisions, batch_sizes, cache_megabytes)):
        totals = _totals(phases, each)
        if totals is None or each == now:
            continue
        gains = [old / new for old, new in zip(before, totals, strict=False)]
        faster = sum(gain > 1 for gain in gains) / len(gains)
        if median(gains) >= 1 / (1 - LEAST_GAIN) and faster >= _FASTER_ROUNDS:
            better.append((median(gains), each))
    if not better:
        return Chosen(now)
    enough = (1 - _NEAR) * max(gain for gain, _ in better)
    gain, settings = min(
        ((gain, each) for gain, each in better if gain >= enough),
        key=lambda pair: (pair[1].changed(now), -pair[0]),
    )
    return Chosen(settings, gain)


def _totals(phases: Sequence[MeasuredPhase], settings: Settings) -> list[float] | None:
    """Seconds of the whole training by each round, or None where a phase was not measured so."""
    parts = [phase.of_training(settings.way(phase)) for phase in phases]
    known = [part for part in parts if part]
    if not known or len(known) < len(parts):
        return None
    return [sum(together) for together in zip(*known, strict=False)]
