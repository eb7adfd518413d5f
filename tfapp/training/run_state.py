"""The state of a training run, and where it goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.data.digests import digest
from tfapp.data.shards.streamed import StreamedSplit
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.models.architecture import architecture_of
from tfapp.objectives import Objective, describe_objective
from tfapp.training.attacked_images import frozen_images
from tfapp.training.board import Board, BoardWriters
from tfapp.training.callbacks import EpochProbe
from tfapp.training.checkpoints import Checkpoint, Progress, assign_values, read_values
from tfapp.training.settings import TrainSettings
from tfapp.training.source import JoinedSource
from tfapp.training.streamed import streamed_split
from tfapp.training.workers import Workers

_LOG = logging.getLogger("tfapp")


@dataclass
class Run:
    """A training run: what it was asked for, and where it stands.

    Attributes:
        model: The classifier in training.
        data: `TextData` or `ImageData` with ``train`` and ``validation``.
        settings: How it trains.
        objective: What a step minimises.
        loss: The loss that the objective is given.
        class_weights: Weight of each class, float32 ``(num_classes,)``, or None.
        seed: Decides order and dropout.
        directory: Folder of the run's files.
        keep: Whether these files are kept: checkpoints, history and TensorBoard logs are written only then.
        workers: The processes that train together; only the chief writes these files.
        callbacks: Further Keras callbacks.
        show_bar: Whether Keras's progress bar is shown.
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        generator: Seeds of dropout in the fused forward pass.
        encoded: Encoded features by split, see `Classifier.encode_splits`.
        progress: Where the run stands.
        best: Values of the model's weights at the best epoch so far; empty when that is not kept.
        resumed: The checkpoint to go on from, until its phase has taken it over.
        pad_to: Widths of the last phase's batches were rounded up to a multiple of this many tokens.
        source: A task that is learned beside the target, or None.
        features: Folder of cached features.
        board: What is written for TensorBoard; None writes nothing.
        writers: Where, while the run trains.
    """

    model: Classifier
    data: Any
    settings: TrainSettings
    objective: Objective
    loss: keras.losses.Loss
    class_weights: npt.NDArray[np.float32] | None
    seed: int
    directory: Path
    keep: bool
    callbacks: Sequence[Any]
    show_bar: bool
    precision: str
    generator: keras.random.SeedGenerator
    encoded: dict[str, Any]
    features: Path
    workers: Workers
    source: JoinedSource | None = None
    progress: Progress = field(default_factory=lambda: Progress(""))
    best: list[npt.NDArray[Any]] = field(default_factory=list)
    resumed: Checkpoint | None = None
    pad_to: int = 1
    board: Board | None = None
    writers: BoardWriters | None = None

    @property
    def variables(self) -> list[Any]:
        """Everything that training changes, dropout's random state included."""
        head = [] if self.source is None else self.source.head.variables
        return [*self.model.variables, *head, self.generator.state]

    @property
    def num_microbatches(self) -> int:
        """In how many parts a batch is computed: as asked for, or in more since memory ran out."""
        return max(self.settings.num_microbatches, self.progress.num_microbatches)

    @property
    def writes(self) -> bool:
        """Whether this process keeps the run's files: of several workers only the chief does."""
        return self.keep and self.workers.chief

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def probes(self) -> list[EpochProbe]:
        """Those of the callbacks that measure before the epoch is recorded."""
        return [callback for callback in self.callbacks if isinstance(callback, EpochProbe)]

    @property
    def weights(self) -> list[Any]:
        """The weights of the model and of the source's head."""
        return [*self.model.weights, *([] if self.source is None else self.source.head.weights)]

    @property
    def streamed(self) -> StreamedSplit | None:
        """The training rows where they stay in shards; ``encoded`` then has a sample of them."""
        return streamed_split(self.data)

    @property
    def rows_an_epoch(self) -> int:
        """How many rows an epoch has, windows counted."""
        return len(self.data.train) if self.streamed is not None else len(self.encoded["train"])

    @property
    def fixed_shapes(self) -> bool:
        """Whether batches need equal numbers of rows and few widths: TPUs compile for each shape."""
        return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)

    @property
    def steps_an_epoch(self) -> int:
        """How many batches an epoch has."""
        whole, rest = divmod(self.rows_an_epoch, self.settings.batch_size)
        return whole if self.fixed_shapes else whole + bool(rest)

    def labels(self, split: str) -> npt.NDArray[np.int32]:
        """The label of each encoded row of a split, int32 ``(rows,)``; all windows have their text's."""
        labels: npt.NDArray[np.int32] = self.data.splits[split].labels
        texts = self.encoded[split].texts
        return labels if texts is None else labels[texts]


def start_run(run: Run) -> None:
    """Seeds dropout, and goes on from a checkpoint of the same run where there is one.

    Workers begin with the weights of the chief, and go on from its checkpoint.

    Raises:
        ConfigError: When one of several workers was asked for something else than the chief.
    """
    _seed_dropout(run.model, run.seed)
    if run.workers.several:
        _begin_alike(run)
    if run.keep:
        run.progress = Progress(_key(_parts(run)))
    adversarial = run.settings.adversarial
    if adversarial is not None and adversarial.refresh == "never":
        # Before a checkpoint changes the model: it is attacked as it was given.
        images = frozen_images(
            run.encoded["train"], run.labels("train"), adversarial, run.model, seed=run.seed
        )
        run.encoded = {**run.encoded, "train": images}
    if not run.keep:
        return
    checkpoint = Checkpoint.load(run.checkpoints, run.progress.key) if run.workers.chief else None
    if run.workers.several:
        content = run.workers.bytes_from_chief(b"" if checkpoint is None else checkpoint.to_bytes())
        checkpoint = Checkpoint.from_bytes(content) if content else None
    if checkpoint is None:
        return
    run.progress, run.best, run.resumed = checkpoint.progress, checkpoint.best, checkpoint
    for probe in run.probes:
        probe.take_up(run.progress.history)
    assign_values(run.variables, checkpoint.variables)
    _LOG.info("going on after %s", checkpoint.progress)


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Gives every random layer a state that the seed decides, whatever was drawn before."""
    generators = [generator for layer in model._flatten_layers() for generator in layer._seed_generators]
    for number, generator in enumerate(generators):
        generator.state.assign(np.array([seed % 2**32, number]).astype(generator.state.dtype))


def _begin_alike(run: Run) -> None:
    workers = run.workers
    run.keep = workers.from_chief(run.keep)
    # Weights may differ: the chief's are sent.
    parts = {**_parts(run), "weights": [list(variable.shape) for variable in run.variables]}
    own = {name: _key(part) for name, part in parts.items()}
    asked = workers.from_chief(own)
    others = sorted(name for name in asked.keys() | own.keys() if asked.get(name) != own.get(name))
    differing = workers.who(bool(others))
    if others:
        raise ConfigError(
            f"worker {workers.index} was asked for something else than the chief; what differs: "
            f"{', '.join(others)}. Run the same workflow on the same files everywhere."
        )
    if differing:
        raise ConfigError(
            f"workers {differing} were asked for something else than the chief; their logs say what differs."
        )
    values = Checkpoint(Progress(""), read_values(run.variables), [], [])
    sent = workers.bytes_from_chief(values.to_bytes() if workers.chief else b"")
    assign_values(run.variables, Checkpoint.from_bytes(sent).variables)


def _key(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _parts(run: Run) -> dict[str, Any]:
    """Everything that a run depends on, by name."""
    parts = {
        "settings": run.settings.described(),
        "objective": describe_objective(run.objective),
        "seed": run.seed,
        "data": run.data.fingerprint,
        "precision": run.precision,
        "model": [run.model.preset, run.model.settings, architecture_of(run.model)],
        "weights": digest(*read_values(run.weights)),
        "features": [encoded.fingerprint() for encoded in run.encoded.values()],
    }
    if run.source is not None:
        parts["source"] = [run.source.fingerprint, run.source.classes, run.source.share]
    return parts
