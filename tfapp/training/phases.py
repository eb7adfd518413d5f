"""Training in phases: cached features below what is frozen, Keras's `fit` above."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from tfapp.data.augment import Augmentation, TextAugmentation, make_augmentation, make_text_augmentation
from tfapp.data.bucketing import TokenRows, padding_share
from tfapp.data.lengths import LengthReport
from tfapp.disk import held
from tfapp.errors import ConfigError, OutputError
from tfapp.models import Classifier
from tfapp.objectives import Objective
from tfapp.objectives.distilled import Distilled
from tfapp.training.adversarial import AdversarialAugmentation, make_adversarial
from tfapp.training.alpha_search import TriedAlpha, search_alpha
from tfapp.training.board import Board, make_board
from tfapp.training.callbacks import write_history
from tfapp.training.inference import input_rows
from tfapp.training.losses import make_loss
from tfapp.training.microbatches import check_divisible
from tfapp.training.precision import choose_precision
from tfapp.training.run import complete_run
from tfapp.training.run_state import Run
from tfapp.training.settings import Phase, TrainSettings, class_weights
from tfapp.training.source import SourceTask, join_source, joint_objective
from tfapp.training.streamed import check_streamed, class_counts, streamed_split
from tfapp.training.workers import Workers

_TRIED = 32


@dataclass(frozen=True)
class History:
    """What a training run did.

    Attributes:
        epochs: One row a finished epoch: phase, train, epoch, loss, accuracy, balanced_accuracy, val_loss,
            val_accuracy, val_balanced_accuracy, learning_rate, seconds, and of its train steps
            examples_per_second and input_wait, the share of their time in which they waited for a batch.
        lengths: Lengths of the training texts in tokens and what became of long ones; None for images.
        padding_share: Share of padding among the tokens of a training epoch, 0 up to 1; 0 for images.
        precision: ``"float32"`` or ``"mixed_bfloat16"``.
        source_model: The classifier of the source's classes, with the source's head on the model's own
            backbone, where there was a source task; `evaluate` measures it on the source's test rows.
        alphas: The weights of the source's loss that were compared, with their scores; empty where there was
            one.
        alpha: The weight that was trained with, or None.
    """

    epochs: list[dict[str, Any]]
    lengths: LengthReport | None
    padding_share: float
    precision: str
    source_model: Classifier | None = None
    alphas: tuple[TriedAlpha, ...] = ()
    alpha: float | None = None

    def save_csv(self, path: str | Path) -> Path:
        """Writes the epochs as CSV and returns the path."""
        write_history(Path(path), self.epochs)
        return Path(path)


def train(
    model: Classifier,
    data: Any,
    *,
    phases: Sequence[Phase] | None = None,
    batch_size: int = 32,
    num_microbatches: int = 1,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    weight_decay: float = 0.01,
    warmup_fraction: float = 0.1,
    schedule: Literal["linear", "cosine", "constant"] = "linear",
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = "none",
    layer_decay: float = 1.0,
    clip_norm: float | None = 1.0,
    class_weight: Literal["balanced"] | dict[str, float] | None = None,
    loss: Literal["cross_entropy", "focal"] = "cross_entropy",
    focal_gamma: float = 2.0,
    label_smoothing: float = 0.0,
    objective: str | Objective = "standard",
    source: SourceTask | None = None,
    monitor: Literal[
        "val_accuracy", "val_balanced_accuracy", "val_loss", "accuracy", "balanced_accuracy", "loss"
    ] = "val_accuracy",
    keep_best: bool = True,
    patience: int | None = None,
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto",
    max_length: int | None = None,
    sampling: Literal["natural", "balanced"] = "natural",
    augment: str | Mapping[str, Any] | Augmentation | TextAugmentation | None = None,
    views: int = 2,
    feature_cache_megabytes: float = 2048.0,
    feature_dir: str | Path | None = None,
    checkpoint_steps: int | None = None,
    run_dir: str | Path | None = None,
    tensorboard: Board | Mapping[str, Any] | bool = True,
    callbacks: Sequence[Any] = (),
    seed: int | None = None,
    verbose: Literal["auto"] | bool = "auto",
) -> History:
    """Fine-tunes a classifier in phases; the model is changed in place.

    While the backbone, or its lower part, is frozen, its outputs are computed once, kept on disk and trained
    on from there. With ``run_dir`` a run that was stopped or killed goes on from its last checkpoint and ends
    with the weights of an unbroken one; SIGTERM and SIGINT then end it after the step and a checkpoint.

    Args:
        model: From `build_text_classifier` or `build_image_classifier`.
        data: `TextData` or `ImageData` with ``train`` and ``validation``; or what `load_sharded_data` opens,
            of which training rows are read batch by batch, and features are not cached.
        phases: What to train, in order; a short linear probe, then everything, when None.
        batch_size: Rows a batch (the global batch), 1 or more.
        num_microbatches: In how many parts each replica computes its rows of a batch, one after another, 1 or
            more. Parts take less memory and more time; their gradients are added up, so the batch stays what
            it is. When memory runs out in a step, it is doubled and training goes on.
        optimizer: ``"adamw"``, or ``"sgd"`` with Nesterov momentum 0.9.
        weight_decay: Decoupled decay of weight matrices, 0 or more; embedding tables, biases and
            normalisation are not decayed.
        warmup_fraction: Share of a phase's steps in which the learning rate rises, 0 up to 1.
        schedule: The learning rate's course after the warm-up.
        learning_rate_scaling: What learning rates are multiplied by where several devices share a batch:
            nothing, their number, or its square root. The batch is as large as on one device, so they need
            it only where you have raised ``batch_size`` with the number of devices.
        layer_decay: Factor of the learning rate from each block to the one below, more than 0 up to 1.
        clip_norm: Largest global norm of the gradients; None does not clip.
        class_weight: ``"balanced"``, weights by class name, or None.
        loss: ``"cross_entropy"`` or ``"focal"``.
        focal_gamma: Exponent of the focal loss.
        label_smoothing: Share of each label spread over all classes, 0 up to 1.
        objective: What a step minimises: a key of `tfapp.objectives.OBJECTIVES`, or an objective.
        source: A second data set to learn beside the target, which makes the objective ``"joint"`` and goes
            with no other; scores on validation rows, the best epoch and the model stay those of the target.
        monitor: What chooses the best epoch, of all phases together.
        keep_best: Whether the best epoch's weights are kept, rather than the last's.
        patience: Epochs without improvement on a phase's own best after which it ends; None never ends it
            early.
        precision: ``"auto"`` chooses bfloat16 where the device multiplies it faster.
        max_length: Most tokens of a text, or of a window. When None, what the model was built with, else the
            99th percentile of the training texts, at most 256.
        sampling: ``"natural"`` for every row once an epoch, ``"balanced"`` for every class equally often.
        augment: What is done to training rows; those of validation and test stay as they are. For images a
            preset (``"light"``, ``"medium"``, ``"strong"``) or the arguments of `Augmentation` by name, with
            those of `AdversarialAugmentation` as ``"adversarial"`` among them; for texts the arguments of
            `TextAugmentation` by name, such as ``{"edits": ["swap", "keyboard"]}``; or None.
        views: Of how many augmented variants of each row, also of the source's, features are cached while
            the backbone, or its lower part, is frozen; epochs take turns. Cached images are not mixed.
        feature_cache_megabytes: Largest feature cache in MB on disk; a larger one is not written, and the
            frozen part is computed in every step instead. Of each split up to 64 MB are held in memory.
        feature_dir: Folder of cached features, which runs on the same data and backbone may share;
            ``run_dir/features`` when None.
        checkpoint_steps: Steps between checkpoints within an epoch, 1 or more, rounded up to what Keras runs
            at once (up to 32); None for as often as costs 2 % of the time, every half minute at most. Each
            epoch ends with one. Two are kept in ``run_dir``.
        run_dir: Folder of ``history.csv``, ``progress.json``, ``checkpoints/``, ``features/`` and
            ``tensorboard/``; None keeps nothing.
        tensorboard: What is written into ``run_dir/tensorboard``: True for the defaults of `Board`, one of
            one's own or its settings by name, False for nothing.
        callbacks: Further Keras callbacks.
        seed: Decides order and dropout; the data's seed when None.
        verbose: Whether to show Keras's progress bar; ``"auto"`` shows it on a terminal and in a notebook.

    Returns:
        The history of all phases. ``model.preprocessor.max_length`` is set, ``model.temperature`` is 1 again,
        which `evaluate` may fit anew. A model built with
        ``long_texts="windows"`` learns from all windows, each with its text's label; losses and accuracies in
        the history then count windows.

    Raises:
        ConfigError: When a setting is unknown or out of range.
        TrainingError: When the loss is no longer finite, or memory runs out.
        OutputError: When ``run_dir`` cannot be written, or another process trains in it.
    """
    _check_scope(model)
    augmentation, adversarial = _augmentations(model, augment)
    board = make_board(tensorboard)
    settings = TrainSettings(
        phases=tuple(phases) if phases is not None else TrainSettings().phases,
        batch_size=batch_size,
        num_microbatches=num_microbatches,
        optimizer=optimizer,
        weight_decay=weight_decay,
        warmup_fraction=warmup_fraction,
        schedule=schedule,
        learning_rate_scaling=learning_rate_scaling,
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
        checkpoint_steps=checkpoint_steps,
        max_length=max_length,
        sampling=sampling,
        augmentation=augmentation,
        views=views,
        adversarial=adversarial,
    )
    check_streamed(data, settings, model=model, source=source)
    for phase in settings.phases:
        model.split(phase.train)  # Refuses a phase that this backbone cannot train, before any work.
    if tuple(data.classes) != tuple(model.classes):
        raise ConfigError(
            f"the model's classes {list(model.classes)} are not the data's {list(data.classes)}: build the "
            "model with classes=data.classes."
        )
    if isinstance(augmentation, TextAugmentation):
        # An edit that lacks its package or table says so here, not in a thread in the middle of an epoch.
        augmentation.change(list(data.train.features[:_TRIED]), seed=0, always=True)
    for given in (data, *(() if source is None else (source.data,))):
        _check_image_sizes(model, given)
    objective = joint_objective(source, objective)
    if adversarial is not None and source is not None:
        raise ConfigError("augment.adversarial attacks one task: leave it out, or the source task.")
    if getattr(objective, "variants", 0) and not isinstance(augmentation, TextAugmentation):
        raise ConfigError(
            f"objective {objective.name!r} trains on variants of texts: say how they are made, for example "
            "with augment={'edits': ['swap', 'keyboard']}."
        )
    if objective.name == Distilled.name and getattr(objective, "teacher", None) is None:
        raise ConfigError("objective 'distilled' needs a teacher: call tfapp.distill.")
    check_divisible(num_microbatches, objective, model)
    criterion = make_loss(loss, focal_gamma=focal_gamma, label_smoothing=label_smoothing)
    weights = class_weights(class_weight, class_counts(data), model.classes)
    chosen = choose_precision(precision)
    seed = data.seed if seed is None else seed
    if not 0 <= seed < 2**31:
        raise ConfigError(f"seed = {seed}: it must be at least 0 and less than 2^31.")
    if run_dir is not None:
        _check_writable(Path(run_dir))
    streamed = streamed_split(data)
    splits = {
        "train": data.train if streamed is None else streamed.sample,
        "validation": data.validation,
    }
    encoded, lengths = model.encode_splits(splits, max_length)
    joined = None if source is None else join_source(model, data, source, seed=seed)
    if joined is not None:
        encoded = {**encoded, "source": joined.encoded}
    model.temperature = 1.0
    with (
        contextlib.nullcontext() if run_dir is None else held(Path(run_dir), cure="choose another run_dir"),
        tempfile.TemporaryDirectory(prefix="tfapp-") as scratch,
    ):
        directory = Path(scratch if run_dir is None else run_dir)
        run = Run(
            model=model,
            data=data,
            settings=settings,
            objective=objective,
            loss=criterion,
            class_weights=weights,
            seed=seed,
            directory=directory,
            keep=run_dir is not None,
            callbacks=callbacks,
            show_bar=_can_show_bar() if verbose == "auto" else bool(verbose),
            precision=chosen,
            generator=keras.random.SeedGenerator(seed),
            encoded=encoded,
            features=directory / "features" if feature_dir is None else Path(feature_dir),
            workers=Workers(tf.distribute.get_strategy()),
            source=joined,
            board=board,
        )
        if not run.steps_an_epoch:
            raise ConfigError(
                f"batch_size = {batch_size} is more than the {run.rows_an_epoch} training rows, and TPUs "
                "take full batches only: lower it."
            )
        tried: tuple[TriedAlpha, ...] = ()
        if source is not None and source.searches:
            run, tried = search_alpha(run, source.alphas, source.alpha_schedule)
        else:
            complete_run(run)
        rows = input_rows(model, run.encoded["train"], pad_to=run.pad_to)
        padding = (
            padding_share(rows, batch_size=batch_size, seed=seed) if isinstance(rows, TokenRows) else 0.0
        )
        return History(
            run.progress.history,
            lengths,
            padding,
            chosen,
            source_model=None if joined is None else joined.model_on(model),
            alphas=tried,
            alpha=getattr(run.objective, "alpha", None) if joined is not None else None,
        )


def _augmentations(
    model: Classifier, augment: Any
) -> tuple[Augmentation | TextAugmentation | None, AdversarialAugmentation | None]:
    """What is done to training rows, and which attack is among it."""
    if "pixels" not in model.input:
        if isinstance(augment, Mapping) and "adversarial" in augment:
            raise ConfigError(
                "augment.adversarial attacks pixels, and this model takes texts: use augment's edits, or an "
                "objective that perturbs embeddings."
            )
        augmentation = make_text_augmentation(augment)
        if augmentation is not None and model.preprocessor.long_texts == "windows":
            raise ConfigError(
                "augment changes whole texts, and windows are parts of them: build the model with "
                "long_texts='truncate', or leave augment out."
            )
        return augmentation, None
    adversarial = None
    if isinstance(augment, Mapping):
        augment = dict(augment)
        adversarial = make_adversarial(augment.pop("adversarial", None))
    return make_augmentation(augment), adversarial


def _check_scope(model: Classifier) -> None:
    """Refuses a model whose variables are on other devices than those that are to train it."""
    if model._distribute_strategy is not (
        tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    ):
        raise ConfigError(
            "the model is built and trained under the same strategy: call both in `with strategy.scope():`."
        )


def _check_image_sizes(model: Classifier, data: Any) -> None:
    """Refuses images that the model's decoder would refuse in the middle of an epoch."""
    facts = getattr(getattr(data, "report", None), "images", None)
    limit = getattr(model.preprocessor, "max_pixels", None)
    if facts is not None and limit is not None and facts.largest[0] * facts.largest[1] > limit:
        width, height = facts.largest
        raise ConfigError(
            f"the data hold an image of {width:,} x {height:,} pixels, more than the model's max_pixels = "
            f"{limit:,}: build the model with as large a limit as the data were read with."
        )


def _can_show_bar() -> bool:
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def _check_writable(directory: Path) -> None:
    """Refuses a folder that cannot be written before hours are spent on what it would hold."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return
    except OSError as error:
        raise OutputError(f"cannot write to run_dir = {directory}: {error.strerror}") from error
