"""The training runs behind a transfer ledger."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tfapp.errors import ConfigError, DataError, nearest
from tfapp.evaluation.calibration import IntArray
from tfapp.evaluation.ledger import WAYS, Outcome, TransferLedger, make_ledger

if TYPE_CHECKING:
    from tfapp.models.classifier import Classifier
    from tfapp.training import Phase, SourceTask

_logger = logging.getLogger("tfapp")
_SCRATCH_RATE = 5e-4
_HEAD_RATE = 1e-3


def transfer_ledger(
    build: Callable[[Literal["pretrained"] | None, int], Classifier],
    data: Any,
    *,
    source: SourceTask | None = None,
    phases: Sequence[Phase] | None = None,
    scratch_phases: Sequence[Phase] | None = None,
    seeds: Sequence[int] = (0,),
    ways: Sequence[str] | None = None,
    num_bootstrap: int = 1000,
    run_dir: str | Path | None = None,
    **options: Any,
) -> TransferLedger:
    """Trains from scratch, with a frozen backbone, fine-tuned and jointly, and compares them.

    What the source task forgot is measured by a linear head trained on the frozen pretrained features: its
    accuracy on the source's test rows with these features, and with those after training. Joint training is
    measured after by the head that it trained beside.

    Args:
        build: Makes a classifier of the target's classes from ``weights`` and ``seed``: ``"pretrained"``, or
            None for random weights. An image network that starts from random weights has to train its batch
            normalisation: build it with ``train_batch_norm=True``.
        data: `TextData` or `ImageData` with test rows.
        source: The source task; without one nothing is trained jointly, and nothing is forgotten.
        phases: How the fine-tuned and the joint model are trained; the default phases when None. The frozen
            one trains its head for as many epochs.
        scratch_phases: How the model from scratch is trained; by default everything, for as many epochs, at
            a learning rate of 5e-4 or more. More epochs may serve it better: the verdict is on equal epochs.
        seeds: Seeds of weights, order and dropout; each trains all ways.
        ways: Which of `WAYS` to train, all that are possible when None. What the source task forgot is only
            known where ``"frozen"`` is among them.
        num_bootstrap: Resamples behind each interval, at least 1.
        run_dir: Folder of the runs, each of which goes on where it was stopped; None keeps nothing.
        **options: Further arguments of `tfapp.train`, for all runs.

    Returns:
        The ledger; print it, or ``save`` it to a folder.

    Raises:
        ConfigError: When there are no seeds, or arguments cannot be used.
        DataError: When target or source have no test rows.
    """
    from tfapp.training import TrainSettings  # TensorFlow loads only where a model runs

    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds = {list(seeds)}: give at least one, all different.")
    wanted = (WAYS if source is not None else WAYS[:-1]) if ways is None else tuple(ways)
    for way in wanted:
        if way not in WAYS:
            raise ConfigError(f"ways: {way!r} is unknown; {nearest(way, WAYS)}")
    if not wanted or (source is None and "joint" in wanted):
        raise ConfigError(f"ways = {list(wanted)}: name at least one; 'joint' needs source=... too.")
    if num_bootstrap < 1:
        raise ConfigError(f"num_bootstrap = {num_bootstrap}: it must be at least 1 (1000 is usual)")
    for name, measured in {"target": data, **({} if source is None else {"source": source.data})}.items():
        if not len(measured.test):
            raise DataError(f"the {name} has no test rows to measure on.")
    chosen = tuple(phases) if phases is not None else TrainSettings().phases
    plans = {"fine-tuned": chosen, "joint": chosen, **_other_plans(chosen, scratch_phases)}
    plans = {way: plans[way] for way in WAYS if way in wanted}
    with tempfile.TemporaryDirectory(prefix="tfapp-") as scratch:
        folder = None if run_dir is None else Path(run_dir)
        runs = _Runs(build, data, source, plans, folder, Path(scratch) if folder is None else folder, options)
        answers = [runs.answers(seed) for seed in seeds]
    outcomes = [
        Outcome(
            way=way,
            trained=", ".join(f"{phase.title} x {phase.epochs}" for phase in plans[way]),
            predicted=np.stack([given[way].predicted for given in answers]),
            source_before=_stacked([given[way].before for given in answers]),
            source_after=_stacked([given[way].after for given in answers]),
            alphas=tuple(alpha for given in answers if (alpha := given[way].alpha) is not None),
        )
        for way in answers[0]
    ]
    source_labels = None if source is None else source.data.test.labels
    return make_ledger(
        outcomes, data.test.labels, source_labels=source_labels, seeds=seeds, num_bootstrap=num_bootstrap
    )


def _other_plans(
    phases: Sequence[Phase], scratch_phases: Sequence[Phase] | None
) -> dict[str, tuple[Phase, ...]]:
    from tfapp.training import Phase

    epochs = sum(phase.epochs for phase in phases)
    head_rate = next((phase.learning_rate for phase in phases if phase.train == "head"), _HEAD_RATE)
    rate = max([_SCRATCH_RATE, *(phase.learning_rate for phase in phases if phase.train == "all")])
    alone = (Phase("all", epochs=epochs, learning_rate=rate),)
    return {
        "from scratch": alone if scratch_phases is None else tuple(scratch_phases),
        "frozen": (Phase("head", epochs=epochs, learning_rate=head_rate),),
    }


def _stacked(answers: Sequence[IntArray | None]) -> IntArray | None:
    known = [given for given in answers if given is not None]
    return np.stack(known) if known else None


class _Answers(NamedTuple):
    """What one model answers: target rows, and source rows before and after training."""

    predicted: IntArray
    before: IntArray | None
    after: IntArray | None
    alpha: float | None


@dataclass(frozen=True)
class _Runs:
    """The runs of one seed after another."""

    build: Callable[[Literal["pretrained"] | None, int], Classifier]
    data: Any
    source: SourceTask | None
    plans: Mapping[str, tuple[Phase, ...]]
    folder: Path | None
    features: Path
    options: Mapping[str, Any]

    def answers(self, seed: int) -> dict[str, _Answers]:
        """Trains each way with one seed and gives what it answers."""
        answers: dict[str, _Answers] = {}
        head: list[Any] | None = None
        before: IntArray | None = None
        for way in self.plans:
            _logger.info("ledger: %s, seed %d", way, seed)
            model = self.build(None if way == "from scratch" else "pretrained", seed)
            extra: dict[str, Any] = {"source": self.source} if way == "joint" else {}
            if way == "from scratch":
                extra["layer_decay"] = 1.0  # Without pretraining lower layers have nothing to keep.
            history = self._train(model, self.data, way, seed, **extra)
            after: IntArray | None = None
            if self.source is not None and way != "from scratch":
                twin = history.source_model or model.with_classes(self.source.data.classes, seed=seed)
                if way == "frozen":
                    self._train_probe(twin, self.source.data, seed)
                    head = twin.head_layers[1].get_weights()
                    before = _predicted(twin, self.source.data.test)
                elif way == "fine-tuned" and head is not None:
                    twin.head_layers[1].set_weights(head)
                if before is not None:
                    after = _predicted(twin, self.source.data.test)
            earlier = None if after is None else before
            answers[way] = _Answers(_predicted(model, self.data.test), earlier, after, history.alpha)
        return answers

    def _train_probe(self, probe: Classifier, data: Any, seed: int) -> None:
        """Trains a linear head of the source's classes on the frozen features."""
        extra: dict[str, Any] = {}
        if data.kind == "text":
            extra["max_length"] = probe.preprocessor.max_length  # as long as the target's texts are read
        if isinstance(self.options.get("class_weight"), Mapping):
            extra["class_weight"] = None  # weights by name are those of the target's classes
        self._train(probe, data, "frozen", seed, folder="source-probe", **extra)

    def _train(
        self, model: Classifier, data: Any, way: str, seed: int, *, folder: str = "", **extra: Any
    ) -> Any:
        from tfapp.training import train

        name = folder or way.replace(" ", "-")
        return train(
            model,
            data,
            **{
                **self.options,
                "phases": self.plans[way],
                "seed": seed,
                "feature_dir": self.features / (f"features-{folder}" if folder else "features"),
                "run_dir": None if self.folder is None else self.folder / f"{name}-{seed}",
                **extra,
            },
        )


def _predicted(model: Classifier, split: Any) -> IntArray:
    from tfapp.training import predict_logits

    answers: IntArray = predict_logits(model, split.features).argmax(axis=1).astype(np.int64)
    return answers
