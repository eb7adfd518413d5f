"""One training run: its phases, under Keras's `fit`."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np
import tensorflow as tf

from tfapp.data.augment import Augmentation
from tfapp.data.bucketing import evaluation_batches
from tfapp.data.image_rows import naming_bad_images
from tfapp.models.folded import folded_parts
from tfapp.models.fused import FusedParts, fused_parts
from tfapp.training.attacked_images import attacked_batches, check_one_replica
from tfapp.training.batches import phase_batches
from tfapp.training.callbacks import EpochKeeper, Selection
from tfapp.training.checkpoints import CheckpointWriter, assign_values
from tfapp.training.divergence import divergence
from tfapp.training.features import EVALUATION_BATCH, phase_rows
from tfapp.training.keras_multi_worker import scalars_averaged
from tfapp.training.live import progress_told
from tfapp.training.memory_estimate import warn_of_memory
from tfapp.training.metrics import Accuracy, BalancedAccuracy
from tfapp.training.observing import Observers, board_kept
from tfapp.training.optimizers import layer_rate_factors, make_optimizer
from tfapp.training.out_of_memory import OutOfMemoryError, complete_phase, memory_ran_out, rows_at_once
from tfapp.training.perturbing import Perturbing, make_perturbing
from tfapp.training.precision import computing_in
from tfapp.training.run_state import Run, start_run
from tfapp.training.schedules import make_schedule
from tfapp.training.settings import Phase
from tfapp.training.step_keeper import EpochStop, StepKeeper, StopRun
from tfapp.training.stopping import PutOff, signals_put_off
from tfapp.training.streamed import reading
from tfapp.training.teaching import states_pass, taught
from tfapp.training.trainer import TrainingModel
from tfapp.training.workers import LOST, lost_worker, shared_batches

_MOST_FUSED_STEPS = 32
_MOST_FUSED_STEPS_WITH_A_BAR = 8
_FIXED_WIDTHS = 32


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
            parts = _faster_parts(run, phase)
            perturbing = _perturbing(run, phase, parts)
            forward, states = parts.upper if parts else None, states_pass(run, parts)
            warn_of_memory(run, phase, forward=forward, perturbing=perturbing, states=states)
    start_run(run)
    told = progress_told(run.directory if run.writes else None)
    with told, board_kept(run), computing_in(run.precision, run.model.backbone):
        for index in range(run.progress.phase, len(run.settings.phases)):
            complete_phase(run, index, run_phase)


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
        TrainingError: When the loss is no longer finite.
        OutOfMemoryError: When memory runs out.
        OutputError: When the run's folder cannot be written.
        KeyboardInterrupt: When a signal ended it; a checkpoint was written before.
    """
    phase, settings, progress = run.settings.phases[index], run.settings, run.progress
    seed = run.seed * 1000 + index
    beside = None if run.source is None else run.source.head
    lower, upper = run.model.split(phase.train, beside=beside)
    fused = _faster_parts(run, phase)
    run.pad_to = fused.pad_to if fused else (_FIXED_WIDTHS if run.fixed_shapes else 1)
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
        live=variants > 0 or attacked is not None or run.streamed is not None,
    )
    given = taught(run, given)
    rows = given.rows
    online = None if augmentation is None or given.augmented else augmentation
    steps = run.steps_an_epoch
    updates = int(getattr(run.objective, "updates", 1))
    total = steps * phase.epochs * updates
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
        num_microbatches=run.num_microbatches,
        states=states_pass(run, fused),
    )
    factors = layer_rate_factors(run.model, settings.layer_decay)
    schedule = make_schedule(settings, phase, total_steps=total)
    optimizer = make_optimizer(settings, schedule, rate_factors=factors)
    metrics = [Accuracy(), BalancedAccuracy(run.model.num_classes)]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    most_fused = _MOST_FUSED_STEPS_WITH_A_BAR if run.show_bar else _MOST_FUSED_STEPS
    if run.keep and settings.checkpoint_steps is not None:
        most_fused = min(most_fused, settings.checkpoint_steps)
    trainer.compile(
        optimizer=optimizer,
        loss=run.loss,
        metrics=metrics,
        jit_compile=False,
        # Steps that run together may have a batch attacked before the weights are those of its step; and on
        # several replicas Keras's loop over them fails ("You must feed a value for placeholder tensor").
        steps_per_execution=1
        if attacked is not None or replicas > 1
        else _divisor(math.gcd(steps, progress.steps_done), most_fused),
    )
    optimizer.build(trainer.trainable_variables)
    sums = [variable for metric in (trainer._loss_tracker, *metrics) for variable in metric.variables]
    resumed = []
    if run.resumed is not None and progress.phase == index:
        if run.resumed.optimizer:  # none, where memory ran out before the phase's first checkpoint
            assign_values(optimizer.variables, run.resumed.optimizer)
        resumed = run.resumed.metrics
        run.resumed = None
    validation = None
    if len(run.data.validation):
        validation, _ = evaluation_batches(
            rows["validation"], run.labels("validation"), batch_size=EVALUATION_BATCH
        )
    writer = CheckpointWriter(run.checkpoints, writes=run.workers.chief) if run.keep else None

    def save() -> None:
        if writer is not None:
            writer.save(
                progress,
                variables=run.variables,
                optimizer=optimizer.variables,
                metrics=sums if progress.steps_done else (),
                best=run.best,
            )

    def diverged(number: int) -> NoReturn:
        if writer is not None:
            writer.wait()
        raise divergence(
            run,
            phase,
            given,
            epoch_step=divmod(number // updates, steps),
            rate=float(schedule(number)),
            seed=seed,
        )

    def rate() -> float:
        return float(schedule(optimizer.iterations - 1))

    keeper = EpochKeeper(
        progress=progress,
        train=phase.title,
        epochs=phase.epochs,
        selection=Selection(settings.monitor, settings.keep_best, settings.patience),
        weights=run.weights,
        best=run.best,
        save=save,
        history_path=run.directory / "history.csv" if run.writes else None,
        rate=rate,
    )
    observers = Observers(run, index, trainer=trainer, given=given, rate=rate, resumed=resumed)

    def fit(waiting: PutOff, *, epochs: int) -> None:
        """Trains from where the phase stands to the end of an epoch."""
        first_epoch, first_step = progress.epochs_done, progress.steps_done

        def part(share: tuple[int, int]) -> tf.data.Dataset:
            return phase_batches(
                given,
                None if run.streamed is not None else run.labels("train"),
                settings,
                model=run.model,
                class_weights=run.class_weights,
                augmentation=online,
                source=run.source,
                streamed=run.streamed,
                seed=seed,
                first_epoch=first_epoch,
                first_step=first_step,
                pad_to=run.pad_to,
                variants=variants,
                share=share,
                full=run.fixed_shapes,
            )

        batches = shared_batches(part)
        if attacked is not None:
            first_batch = first_epoch * steps + first_step
            batches = attacked_batches(batches, attacked, run.model, seed=seed, first_batch=first_batch)
        watcher = StepKeeper(
            progress=progress,
            steps=steps,
            every=settings.checkpoint_steps,
            metrics=sums,
            resumed=resumed if first_step else (),
            writer=writer,
            save=save,
            waiting=waiting,
            workers=run.workers,
            diverged=diverged,
        )
        trainer.fit(
            batches,
            epochs=epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=steps - first_step,
            validation_data=validation,
            shuffle=False,
            verbose=1 if run.show_bar else 0,
            callbacks=[
                observers.pace,
                watcher,
                *run.probes,
                *observers.writing,
                keeper,
                *([] if writer is None else [EpochStop(writer, waiting, run.workers)]),
                *(callback for callback in run.callbacks if callback not in run.probes),
            ],
        )

    for probe in run.probes:
        probe.phase = index + 1
    try:
        with (
            signals_put_off(run.keep) as waiting,
            naming_bad_images(),
            reading(run.streamed),
            scalars_averaged(tf.distribute.get_strategy()),
        ):
            if progress.steps_done and not progress.stopped:
                fit(waiting, epochs=progress.epochs_done + 1)
            if progress.epochs_done < phase.epochs and not progress.stopped:
                fit(waiting, epochs=phase.epochs)
            if writer is not None:
                writer.wait()
    except StopRun:
        raise KeyboardInterrupt from None  # the signal's own handler has let it pass
    except LOST as error:
        if not run.workers.several:
            raise
        raise lost_worker(error) from error
    except tf.errors.OpError as error:
        if not memory_ran_out(error):
            raise
        at_once = rows_at_once(run, run.num_microbatches) if trainer.in_step else EVALUATION_BATCH
        raise OutOfMemoryError(
            f"phase {index + 1} ({phase.title}) needs more memory than there is, for {at_once} rows at once: "
            f"lower batch_size (now {settings.batch_size}), or the length of texts or the size of images.",
            in_step=trainer.in_step,
        ) from error
    finally:
        observers.close()
        if writer is not None:
            writer.close()
    if run.best:
        assign_values(run.weights, run.best)
    progress.phase, progress.epochs_done = index + 1, 0
    progress.phase_best, progress.stale_epochs, progress.stopped = None, 0, False


def _divisor(steps: int, most: int) -> int:
    """The largest divisor of ``steps`` up to ``most``: steps run together must not cross an epoch's end."""
    return next(count for count in range(min(steps, most), 0, -1) if steps % count == 0)
