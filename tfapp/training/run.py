"""One training run: its state, its checkpoints and its phases."""

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

from tfapp.data.augment import Augmentation
from tfapp.data.bucketing import evaluation_batches
from tfapp.data.digests import digest
from tfapp.data.image_rows import naming_bad_images
from tfapp.errors import TrainingError, writing_problem
from tfapp.models import Classifier
from tfapp.models.architecture import architecture_of
from tfapp.models.folded import folded_parts
from tfapp.models.fused import FusedParts, fused_parts
from tfapp.objectives import Objective, describe_objective
from tfapp.training.attacked_images import attacked_batches, check_one_replica, frozen_images
from tfapp.training.batches import phase_batches
from tfapp.training.callbacks import EpochKeeper, EpochProbe, Selection
from tfapp.training.checkpoints import Checkpoint, Progress, assign_values, read_values
from tfapp.training.features import EVALUATION_BATCH, phase_rows
from tfapp.training.metrics import Accuracy, BalancedAccuracy
from tfapp.training.optimizers import layer_rate_factors, make_optimizer
from tfapp.training.perturbing import Perturbing, make_perturbing
from tfapp.training.precision import computing_in
from tfapp.training.schedules import make_schedule
from tfapp.training.settings import Phase, TrainSettings
from tfapp.training.source import JoinedSource
from tfapp.training.trainer import TrainingModel

_LOG = logging.getLogger("tfapp")
_MOST_FUSED_STEPS = 32
_MOST_FUSED_STEPS_WITH_A_BAR = 8


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
    source: JoinedSource | None = None
    progress: Progress = field(default_factory=lambda: Progress(""))
    best: list[npt.NDArray[Any]] = field(default_factory=list)
    resumed: Checkpoint | None = None
    pad_to: int = 1

    @property
    def variables(self) -> list[Any]:
        """Everything that training changes, dropout's random state included."""
        head = [] if self.source is None else self.source.head.variables
        return [*self.model.variables, *head, self.generator.state]

    @property
    def probes(self) -> list[EpochProbe]:
        """Those of the callbacks that measure before the epoch is recorded."""
        return [callback for callback in self.callbacks if isinstance(callback, EpochProbe)]

    @property
    def weights(self) -> list[Any]:
        """The weights of the model and of the source's head."""
        return [*self.model.weights, *([] if self.source is None else self.source.head.weights)]

    def labels(self, split: str) -> npt.NDArray[np.int32]:
        """The label of each encoded row of a split, int32 ``(rows,)``; all windows have their text's."""
        labels: npt.NDArray[np.int32] = self.data.splits[split].labels
        texts = self.encoded[split].texts
        return labels if texts is None else labels[texts]


def start_run(run: Run) -> None:
    """Seeds dropout, and goes on from a checkpoint of the same run where there is one."""
    _seed_dropout(run.model, run.seed)
    if run.keep:
        run.progress = Progress(_run_key(run))
    adversarial = run.settings.adversarial
    if adversarial is not None and adversarial.refresh == "never":
        # Before a checkpoint changes the model: it is attacked as it was given.
        images = frozen_images(
            run.encoded["train"], run.labels("train"), adversarial, run.model, seed=run.seed
        )
        run.encoded = {**run.encoded, "train": images}
    if not run.keep:
        return
    checkpoint = Checkpoint.load(run.directory / "checkpoints", run.progress.key)
    if checkpoint is None:
        return
    run.progress, run.best, run.resumed = checkpoint.progress, checkpoint.best, checkpoint
    for probe in run.probes:
        probe.take_up(run.progress.history)
    assign_values(run.variables, checkpoint.variables)
    _LOG.info(
        "going on after phase %d, epoch %d", checkpoint.progress.phase + 1, checkpoint.progress.epochs_done
    )


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Gives every random layer a state that the seed decides, whatever was drawn before."""
    generators = [generator for layer in model._flatten_layers() for generator in layer._seed_generators]
    for number, generator in enumerate(generators):
        generator.state.assign(np.array([seed % 2**32, number]).astype(generator.state.dtype))


def _run_key(run: Run) -> str:
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
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def complete_run(run: Run) -> None:
    """Starts a run, or goes on with it, and runs all phases that are left.

    Args:
        run: The run; its model and progress are changed in place.

    Raises:
        ConfigError: When the objective cannot perturb what a phase trains, or the strategy cannot attack
            images in the pipeline.
        TrainingError: When the loss is no longer finite, or memory runs out.
        OutputError: When the run's folder cannot be written.
    """
    adversarial = run.settings.adversarial
    if adversarial is not None and adversarial.refresh == "epoch":
        check_one_replica()
    with computing_in(run.precision, run.model.backbone):
        for phase in run.settings.phases:
            # Refuses a phase that cannot be perturbed before those in front of it are trained.
            _perturbing(run, phase, _faster_parts(run, phase))
    start_run(run)
    with computing_in(run.precision, run.model.backbone):
        for index in range(run.progress.phase, len(run.settings.phases)):
            run_phase(run, index)


def _faster_parts(run: Run, phase: Phase) -> FusedParts | None:
    """The faster forward pass of a phase, or None where Keras's own serves."""
    beside = None if run.source is None else run.source.head
    return fused_parts(
        run.model,
        phase.train,
        precision=run.precision,
        generator=run.generator,
        typical_length=float(np.median(run.encoded["train"].lengths)),
        beside=beside,
    ) or folded_parts(run.model, phase.train, precision=run.precision, beside=beside)


def _perturbing(run: Run, phase: Phase, parts: FusedParts | None) -> Perturbing:
    return make_perturbing(run.model, phase.train, run.objective, fused=parts, precision=run.precision)


def run_phase(run: Run, index: int) -> None:
    """Runs a phase, or what is left of it.

    Args:
        run: The run; its model and progress are changed in place.
        index: Number of the phase, from 0.

    Raises:
        TrainingError: When the loss is no longer finite, or memory runs out.
        OutputError: When the run's folder cannot be written.
    """
    phase, settings, progress = run.settings.phases[index], run.settings, run.progress
    seed = run.seed * 1000 + index
    beside = None if run.source is None else run.source.head
    lower, upper = run.model.split(phase.train, beside=beside)
    fused = _faster_parts(run, phase)
    run.pad_to = fused.pad_to if fused else 1
    augmentation, variants = settings.augmentation, int(getattr(run.objective, "variants", 0))
    adversarial = settings.adversarial
    attacked = adversarial if adversarial is not None and adversarial.refresh == "epoch" else None
    given = phase_rows(
        run.model,
        phase,
        run.encoded,
        lower=lower,
        forward=fused.lower if fused else None,
        precision=run.precision,
        directory=run.features,
        limit_megabytes=settings.feature_cache_megabytes,
        pad_to=run.pad_to,
        augmentation=augmentation.without_mixing()
        if isinstance(augmentation, Augmentation)
        else augmentation,
        views=settings.views,
        seed=run.seed,
        live=variants > 0 or attacked is not None,
    )
    rows, labels = given.rows, run.labels("train")
    online = None if augmentation is None or given.augmented else augmentation
    steps = -(-len(labels) // settings.batch_size)
    total = steps * phase.epochs * getattr(run.objective, "updates", 1)
    trainer = TrainingModel(
        upper,
        objective=run.objective,
        frozen=given.frozen,
        forward=fused.upper if fused else None,
        whole=run.model,
        answers=None if beside is None else run.model.split(phase.train)[1],
        total_steps=total,
        perturbing=_perturbing(run, phase, fused),
        seed=seed,
    )
    factors = layer_rate_factors(run.model, settings.layer_decay)
    schedule = make_schedule(settings, phase, total_steps=total)
    optimizer = make_optimizer(settings, schedule, rate_factors=factors)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    most_fused = _MOST_FUSED_STEPS_WITH_A_BAR if run.show_bar else _MOST_FUSED_STEPS
    trainer.compile(
        optimizer=optimizer,
        loss=run.loss,
        metrics=[Accuracy(), BalancedAccuracy(run.model.num_classes)],
        jit_compile=False,
        # Steps that run together may have a batch attacked before the weights are those of its step; and on
        # several replicas Keras's loop over them fails ("You must feed a value for placeholder tensor").
        steps_per_execution=1 if attacked is not None or replicas > 1 else _divisor(steps, most_fused),
    )
    optimizer.build(trainer.trainable_variables)
    if run.resumed is not None and progress.phase == index:
        assign_values(optimizer.variables, run.resumed.optimizer)
        run.resumed = None
    validation = None
    if len(run.data.validation):
        validation, _ = evaluation_batches(
            rows["validation"], run.labels("validation"), batch_size=EVALUATION_BATCH
        )

    def save() -> None:
        if run.keep:
            values = read_values(run.variables), read_values(optimizer.variables), run.best
            Checkpoint(progress, *values).save(run.directory / "checkpoints")

    keeper = EpochKeeper(
        progress=progress,
        train=phase.title,
        epochs=phase.epochs,
        selection=Selection(settings.monitor, settings.keep_best, settings.patience),
        weights=run.weights,
        best=run.best,
        save=save,
        history_path=run.directory / "history.csv" if run.keep else None,
        rate=lambda: float(schedule(optimizer.iterations - 1)),
    )
    if progress.epochs_done < phase.epochs and not progress.stopped:
        board = run.directory / "tensorboard" / f"phase-{index + 1}"
        batches = phase_batches(
            given,
            labels,
            settings,
            model=run.model,
            class_weights=run.class_weights,
            augmentation=online,
            source=run.source,
            seed=seed,
            first_epoch=progress.epochs_done,
            pad_to=run.pad_to,
            variants=variants,
        )
        if attacked is not None:
            first_batch = progress.epochs_done * steps
            batches = attacked_batches(batches, attacked, run.model, seed=seed, first_batch=first_batch)
        for probe in run.probes:
            probe.phase = index + 1
        try:
            with naming_bad_images():
                trainer.fit(
                    batches,
                    epochs=phase.epochs,
                    initial_epoch=progress.epochs_done,
                    steps_per_epoch=steps,
                    validation_data=validation,
                    shuffle=False,
                    verbose=1 if run.show_bar else 0,
                    callbacks=[
                        *run.probes,
                        keeper,
                        *([keras.callbacks.TensorBoard(str(board), write_graph=False)] if run.keep else []),
                        *(callback for callback in run.callbacks if callback not in run.probes),
                    ],
                )
        except tf.errors.ResourceExhaustedError as error:
            if writing_problem(error) is not None:
                raise
            raise TrainingError(
                f"phase {index + 1} ({phase.title}) needs more memory than there is: lower batch_size "
                f"(now {settings.batch_size}), or the length of texts or the size of images."
            ) from error
    if run.best:
        assign_values(run.weights, run.best)
    progress.phase, progress.epochs_done = index + 1, 0
    progress.phase_best, progress.stale_epochs, progress.stopped = None, 0, False


def _divisor(steps: int, most: int) -> int:
    """The largest divisor of ``steps`` up to ``most``: steps run together must not cross an epoch's end."""
    return next(count for count in range(min(steps, most), 0, -1) if steps % count == 0)
