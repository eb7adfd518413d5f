"""Training in phases: cached features below what is frozen, Keras's `fit` above."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from tfapp.data.bucketing import Rows, TokenRows, evaluation_batches, padding_share, training_batches
from tfapp.data.feature_cache import FeatureShape, cached_features
from tfapp.data.tokenizers import DEFAULT_MAX_LENGTH, EncodedTexts
from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.models.fused import FusedParts, fused_parts
from tfapp.objectives import Objective, make_objective
from tfapp.training.callbacks import EpochKeeper, Selection, write_history
from tfapp.training.checkpoints import Checkpoint, Progress, assign_values, read_values
from tfapp.training.inference import batch_outputs
from tfapp.training.losses import make_loss
from tfapp.training.optimizers import layer_rate_factors, make_optimizer
from tfapp.training.precision import choose_precision, computing_in
from tfapp.training.settings import Phase, TrainSettings, class_weights
from tfapp.training.trainer import TrainingModel

_LOG = logging.getLogger("tfapp")
_EVALUATION_BATCH = 128
_MOST_FUSED_STEPS = 32


@dataclass(frozen=True)
class History:
    """What a training run did.

    Attributes:
        epochs: One row a finished epoch: phase, train, epoch, loss, accuracy, val_loss, val_accuracy,
            learning_rate, seconds.
        max_length: Where texts were cut, in tokens.
        padding_share: Share of padding among the tokens of a training epoch, 0 up to 1.
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
    """

    epochs: list[dict[str, Any]]
    max_length: int
    padding_share: float
    precision: str

    def save_csv(self, path: str | Path) -> Path:
        """Writes the epochs as CSV and returns the path."""
        write_history(Path(path), self.epochs)
        return Path(path)


@dataclass
class _Run:
    """One run's fixed parts and its state."""

    model: Classifier
    data: Any
    settings: TrainSettings
    objective: Objective
    seed: int
    directory: Path
    keep: bool
    callbacks: Sequence[Any]
    show_bar: bool
    precision: str
    generator: keras.random.SeedGenerator
    encoded: dict[str, EncodedTexts] = field(default_factory=dict)
    progress: Progress = field(default_factory=lambda: Progress(""))
    best: list[npt.NDArray[Any]] = field(default_factory=list)
    resumed: Checkpoint | None = None

    @property
    def variables(self) -> list[Any]:
        """Everything that training changes in the model, dropout's random state included."""
        return [*self.model.variables, self.generator.state]


def train(
    model: Classifier,
    data: Any,
    *,
    phases: Sequence[Phase] | None = None,
    batch_size: int = 32,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    weight_decay: float = 0.01,
    warmup_fraction: float = 0.1,
    schedule: Literal["linear", "cosine", "constant"] = "linear",
    layer_decay: float = 1.0,
    clip_norm: float | None = 1.0,
    class_weight: Literal["balanced"] | dict[str, float] | None = None,
    loss: Literal["cross_entropy", "focal"] = "cross_entropy",
    focal_gamma: float = 2.0,
    label_smoothing: float = 0.0,
    objective: str | Objective = "standard",
    monitor: Literal["val_accuracy", "val_loss", "accuracy", "loss"] = "val_accuracy",
    keep_best: bool = True,
    patience: int | None = None,
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto",
    max_length: int | None = None,
    feature_cache_megabytes: float = 2048.0,
    run_dir: str | Path | None = None,
    callbacks: Sequence[Any] = (),
    seed: int | None = None,
    verbose: Literal["auto"] | bool = "auto",
) -> History:
    """Fine-tunes a classifier in phases; the model is changed in place.

    While the backbone, or its lower part, is frozen, its outputs are computed once, kept on disk and trained
    on from there. With ``run_dir`` a run that was stopped goes on after its last finished epoch.

    Args:
        model: From `build_text_classifier`.
        data: `TextData` with ``train`` and ``validation``.
        phases: What to train, in order; a short linear probe, then everything, when None.
        batch_size: Rows a batch (the global batch), 1 or more.
        optimizer: ``"adamw"``, or ``"sgd"`` with Nesterov momentum 0.9.
        weight_decay: Decoupled decay of weight matrices, 0 or more.
        warmup_fraction: Share of a phase's steps in which the learning rate rises, 0 up to 1.
        schedule: The learning rate's course after the warm-up.
        layer_decay: Factor of the learning rate from each block to the one below, more than 0 up to 1.
        clip_norm: Largest global norm of the gradients; None does not clip.
        class_weight: ``"balanced"``, weights by class name, or None.
        loss: ``"cross_entropy"`` or ``"focal"``.
        focal_gamma: Exponent of the focal loss.
        label_smoothing: Share of each label spread over all classes, 0 up to 1.
        objective: What a step minimises: a key of `tfapp.objectives.OBJECTIVES`, or an objective.
        monitor: What chooses the best epoch.
        keep_best: Whether the best epoch's weights are kept, rather than the last's.
        patience: Epochs without improvement after which a phase ends; None never ends it early.
        precision: ``"auto"`` chooses bfloat16 where the device multiplies it faster.
        max_length: Where to cut texts, in tokens; the 99th percentile of the training texts, at most 256,
            when None.
        feature_cache_megabytes: Largest feature cache in MB; a larger one is not written, and the frozen part
            is computed in every step instead.
        run_dir: Folder of ``history.csv``, ``checkpoints/``, ``features/`` and ``tensorboard/``; None keeps
            nothing.
        callbacks: Further Keras callbacks.
        seed: Decides order and dropout; the data's seed when None.
        verbose: Whether to show Keras's progress bar; ``"auto"`` shows it on a terminal.

    Returns:
        The history of all phases. ``model.preprocessor.max_length`` is set to where texts were cut.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        TrainingError: When the loss is no longer finite.
        OutputError: When ``run_dir`` cannot be written.
    """
    settings = TrainSettings(
        phases=tuple(phases) if phases is not None else TrainSettings().phases,
        batch_size=batch_size,
        optimizer=optimizer,
        weight_decay=weight_decay,
        warmup_fraction=warmup_fraction,
        schedule=schedule,
        layer_decay=layer_decay,
        clip_norm=clip_norm,
        class_weight=class_weight,
        loss=loss,
        focal_gamma=focal_gamma,
        label_smoothing=label_smoothing,
        monitor=monitor,
        keep_best=keep_best,
        patience=patience,
        precision=precision,
        feature_cache_megabytes=feature_cache_megabytes,
        max_length=max_length,
    )
    for phase in settings.phases:
        model.split(phase.train)  # Refuses a phase that this backbone cannot train, before any work.
    if tuple(data.classes) != tuple(model.classes):
        raise ConfigError(
            f"the model's classes {list(model.classes)} are not the data's {list(data.classes)}: build the "
            "model with classes=data.classes."
        )
    with tempfile.TemporaryDirectory(prefix="tfapp-") as scratch:
        run = _Run(
            model=model,
            data=data,
            settings=settings,
            objective=make_objective(objective),
            seed=data.seed if seed is None else seed,
            directory=Path(scratch if run_dir is None else run_dir),
            keep=run_dir is not None,
            callbacks=callbacks,
            show_bar=sys.stdout.isatty() if verbose == "auto" else bool(verbose),
            precision=choose_precision(precision),
            generator=keras.random.SeedGenerator(data.seed if seed is None else seed),
        )
        _encode(run)
        _seed_dropout(model, run.seed)
        run.progress = Progress(_run_key(run))
        _load_checkpoint(run)
        with computing_in(run.precision, model.backbone):
            for index in range(run.progress.phase, len(settings.phases)):
                _run_phase(run, index)
        rows = TokenRows(run.encoded["train"], pad_id=model.preprocessor.pad_id)
        return History(
            run.progress.history,
            model.preprocessor.max_length,
            padding_share(rows, batch_size=batch_size, seed=run.seed),
            run.precision,
        )


def _encode(run: _Run) -> None:
    """Encodes training and validation texts, and decides where to cut them."""
    tokenizer = run.model.preprocessor
    splits = {"train": run.data.train, "validation": run.data.validation}
    whole = {name: tokenizer.encode(split.texts, max_length=2**30) for name, split in splits.items()}
    positions = run.model.max_positions or 2**30
    requested = run.settings.max_length
    if requested is not None and requested > positions:
        raise ConfigError(
            f"max_length = {requested}: the backbone has positions for {positions} tokens only."
        )
    longest = int(np.ceil(np.percentile(whole["train"].full_lengths, 99)))
    tokenizer.max_length = requested or max(3, min(longest, DEFAULT_MAX_LENGTH, positions))
    run.encoded = {name: encoded.cut(tokenizer.max_length) for name, encoded in whole.items()}
    lengths = run.encoded["train"].full_lengths
    cut = float((lengths > tokenizer.max_length).mean())
    _LOG.info(
        "lengths in tokens: p50 %d, p95 %d, p99 %d; max_length %d cuts %.1f %% of the training texts%s",
        *np.percentile(lengths, [50, 95, 99]),
        tokenizer.max_length,
        100 * cut,
        f" (raise max_length to keep more, up to {min(positions, int(lengths.max()))})" if cut else "",
    )


def _seed_dropout(model: keras.Model, seed: int) -> None:
    """Gives every random layer a state that the seed decides, whatever was drawn before."""
    generators = [generator for layer in model._flatten_layers() for generator in layer._seed_generators]
    for number, generator in enumerate(generators):
        generator.state.assign(np.array([seed % 2**32, number]).astype(generator.state.dtype))


def _run_key(run: _Run) -> str:
    parts = {
        "settings": run.settings.described(),
        "objective": run.objective.name,
        "seed": run.seed,
        "data": run.data.fingerprint,
        "precision": run.precision,
        "model": [[variable.path, list(variable.shape)] for variable in run.model.weights],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _load_checkpoint(run: _Run) -> None:
    if not run.keep:
        return
    checkpoint = Checkpoint.load(run.directory / "checkpoints", run.progress.key)
    if checkpoint is None:
        return
    run.progress, run.best, run.resumed = checkpoint.progress, checkpoint.best, checkpoint
    assign_values(run.variables, checkpoint.variables)
    _LOG.info(
        "going on after phase %d, epoch %d", checkpoint.progress.phase + 1, checkpoint.progress.epochs_done
    )


def _run_phase(run: _Run, index: int) -> None:
    phase, settings, progress = run.settings.phases[index], run.settings, run.progress
    lower, upper = run.model.split(phase.train)
    fused = fused_parts(run.model, phase.train, precision=run.precision, generator=run.generator)
    rows, frozen = _phase_rows(run, phase, lower, fused)
    labels = run.data.train.labels
    steps = -(-len(rows["train"]) // settings.batch_size)
    trainer = TrainingModel(
        upper,
        objective=run.objective,
        frozen=frozen,
        forward=fused.upper if fused else None,
    )
    factors = layer_rate_factors(run.model, settings.layer_decay)
    optimizer = make_optimizer(settings, phase, total_steps=steps * phase.epochs, rate_factors=factors)
    trainer.compile(
        optimizer=optimizer,
        loss=make_loss(
            settings.loss, focal_gamma=settings.focal_gamma, label_smoothing=settings.label_smoothing
        ),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
        steps_per_execution=1 if run.show_bar else _divisor(steps, _MOST_FUSED_STEPS),
    )
    optimizer.build(trainer.trainable_variables)
    if run.resumed is not None and progress.phase == index:
        assign_values(optimizer.variables, run.resumed.optimizer)
        run.resumed = None
    validation = None
    if len(run.data.validation):
        validation, _ = evaluation_batches(
            rows["validation"], run.data.validation.labels, batch_size=_EVALUATION_BATCH
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
        weights=run.model.weights,
        best=run.best,
        save=save,
        history_path=run.directory / "history.csv" if run.keep else None,
        rate=lambda: float(keras.ops.convert_to_numpy(optimizer.learning_rate)),
    )
    if progress.epochs_done < phase.epochs and not progress.stopped:
        board = run.directory / "tensorboard" / f"phase-{index + 1}"
        trainer.fit(
            training_batches(
                rows["train"],
                labels,
                batch_size=settings.batch_size,
                seed=run.seed * 1000 + index,
                first_epoch=progress.epochs_done,
                class_weights=class_weights(settings.class_weight, labels, tuple(run.model.classes)),
            ),
            epochs=phase.epochs,
            initial_epoch=progress.epochs_done,
            steps_per_epoch=steps,
            validation_data=validation,
            shuffle=False,
            verbose=1 if run.show_bar else 0,
            callbacks=[
                keeper,
                *([keras.callbacks.TensorBoard(str(board), write_graph=False)] if run.keep else []),
                *run.callbacks,
            ],
        )
    if run.best:
        assign_values(run.model.weights, run.best)
    progress.phase, progress.epochs_done = index + 1, 0
    progress.stale_epochs, progress.stopped = 0, False


def _phase_rows(
    run: _Run, phase: Phase, lower: keras.Model | None, fused: FusedParts | None
) -> tuple[dict[str, Rows], Any]:
    """Gives the rows that a phase trains on, and what is still to be computed below them in every step."""
    tokens: dict[str, Rows] = {
        name: TokenRows(encoded, pad_id=run.model.preprocessor.pad_id)
        for name, encoded in run.encoded.items()
    }
    if lower is None:
        return tokens, None
    pooled = phase.train == "head"
    output = "features" if pooled else "hidden"
    width = int(lower.output[output].shape[-1])
    bfloat16 = run.precision == "mixed_bfloat16"
    shapes = {
        name: FeatureShape(
            len(encoded), len(encoded) if pooled else len(encoded.values), width, bfloat16 and not pooled
        )
        for name, encoded in run.encoded.items()
    }
    megabytes = sum(shape.megabytes for shape in shapes.values())
    if megabytes > run.settings.feature_cache_megabytes:
        _LOG.info(
            "features of %.0f MB are beyond feature_cache_megabytes = %.0f: the frozen part is computed in "
            "every step, which is slower",
            megabytes,
            run.settings.feature_cache_megabytes,
        )
        return tokens, fused.lower if fused else lower
    weights = hashlib.sha256(b"".join(np.ascontiguousarray(v.numpy()).tobytes() for v in lower.weights))
    rows: dict[str, Rows] = {}
    hits = []
    forward = fused.lower if fused else lower
    for name, encoded in run.encoded.items():

        def compute(name: str = name) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
            for indices, outputs in batch_outputs(forward, tokens[name], batch_size=_EVALUATION_BATCH):
                yield indices, outputs[output]

        texts = hashlib.sha256(encoded.values.tobytes() + encoded.row_splits.tobytes()).hexdigest()
        key = f"{weights.hexdigest()}-{texts}-{run.precision}"
        splits = None if pooled else encoded.row_splits
        path = run.directory / "features" / f"{phase.title.replace(' ', '-')}-{name}"
        rows[name], hit = cached_features(path, key, shapes[name], splits, compute, name=output)
        hits.append(hit)
    _LOG.info(
        "features below '%s': %.1f MB on disk, %s",
        phase.title,
        megabytes,
        "reused" if all(hits) else "computed",
    )
    return rows, None


def _divisor(steps: int, most: int) -> int:
    """The largest divisor of ``steps`` up to ``most``: steps run together must not cross an epoch's end."""
    return next(count for count in range(min(steps, most), 0, -1) if steps % count == 0)
