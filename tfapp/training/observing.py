"""What lets a run be seen: its board for TensorBoard, and its live progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfapp.disk import writing
from tfapp.objectives import describe_objective
from tfapp.training.board import BoardKeeper, BoardWriters
from tfapp.training.board_files import cut_back
from tfapp.training.board_pages import PredictionPage, write_end, write_settings
from tfapp.training.callbacks import COLUMNS
from tfapp.training.features import PhaseRows
from tfapp.training.inference import input_rows
from tfapp.training.live import LiveProgress
from tfapp.training.run_state import Run
from tfapp.training.throughput import Pace, WindowLoss
from tfapp.training.trainer import TrainingModel

_PARTS = ("", "train", "validation")
_METRICS = COLUMNS[3:9]


class Observers:
    """The callbacks that watch a phase.

    ``pace`` goes before all others, and those of ``writing`` before what writes the checkpoint of an epoch.

    Args:
        run: The run.
        index: Number of the phase, from 0.
        trainer: What Keras fits.
        given: What the phase trains on.
        rate: Gives the learning rate of the last step.
        resumed: What the loss and the metrics of a resumed epoch hold, the sum and the weight of the loss
            first; empty elsewhere.
    """

    def __init__(
        self,
        run: Run,
        index: int,
        *,
        trainer: TrainingModel,
        given: PhaseRows,
        rate: Callable[[], float],
        resumed: Sequence[Any] = (),
    ) -> None:
        self.pace = Pace(trainer.meter)
        self.writing: list[Any] = []
        self._board: BoardKeeper | None = None
        if not run.writes:
            return
        rows, steps = run.rows_an_epoch, run.steps_an_epoch

        def steps_done() -> int:
            return run.progress.steps_done

        def window() -> WindowLoss:
            mean = float(resumed[0] / resumed[1]) if resumed else None
            return WindowLoss(batch_size=run.settings.batch_size, rows=rows, resumed=mean)

        if run.board is not None and run.writers is not None:
            shown = min(run.board.predictions, len(run.data.validation))
            self._board = BoardKeeper(
                run.board,
                run.writers,
                offset=_steps_before(run, index),
                steps=steps,
                steps_done=steps_done,
                pace=self.pace,
                window=window(),
                rate=rate,
                weights=trainer.trainable_variables,
                page=_page(run, trainer, given, shown) if shown else None,
            )
            self.writing.append(self._board)
        phase = run.settings.phases[index]
        place = {
            "phase": index + 1,
            "phases": len(run.settings.phases),
            "train": phase.title,
            "epochs": phase.epochs,
            "steps": steps,
        }
        self.writing.append(
            LiveProgress(
                run.directory, place=place, steps_done=steps_done, pace=self.pace, window=window(), rate=rate
            )
        )

    def close(self) -> None:
        """Ends what the phase may have left running, however it ended."""
        if self._board is not None:
            self._board.close()


@contextlib.contextmanager
def board_kept(run: Run) -> Iterator[None]:
    """Keeps a run's board while it trains in the block, in one file a part, as readers sort files by name.

    A board of an interrupted run is cut back to where the run stands. Settings are written when it begins,
    and at its end the metrics of the epoch whose weights it ends with.

    Args:
        run: The run, which has found its checkpoint if there is one.
    """
    if not run.writes or run.board is None:
        yield
        return
    directory, total = run.directory / "tensorboard", _steps_before(run, len(run.settings.phases))
    with writing(directory):
        fresh = _cut_back(run, directory)
    run.writers = writers = BoardWriters(directory)
    try:
        if run.board.hparams and fresh:
            with writers.at("", 0):
                write_settings(_described(run), [f"final/{name}" for name in _METRICS])
        yield
        if run.board.hparams and run.progress.history:
            with writers.at("", total):
                for name in _METRICS:
                    if (value := _final_row(run).get(name)) is not None:
                        tf.summary.scalar(f"final/{name}", value)
                write_end()
    finally:
        writers.close()


def cut_board(run: Run) -> None:
    """Takes out of a board what a run writes again that has gone back.

    Args:
        run: The run, whose progress says where it stands now.
    """
    if run.writers is not None:
        run.writers.close()  # they are opened again when something is written
        with writing(run.writers.directory):
            _cut_back(run, run.writers.directory, least=0)


def _cut_back(run: Run, directory: Path, *, least: int = -1) -> bool:
    """Removes what a run will write again; tells whether it has no finished step.

    Settings stand at step 0, and stay with ``least=0``.
    """
    progress, last = run.progress, len(run.settings.phases)
    within = progress.epochs_done * run.steps_an_epoch + progress.steps_done
    done = _steps_before(run, progress.phase) + (within if progress.phase < last else 0)
    for part in _PARTS:
        # The final metrics stand at the last step, and are written anew whenever a run ends.
        kept = done if part else min(done, _steps_before(run, last) - 1)
        cut_back(directory / part, last_step=kept if done else least)
    return not done


def _final_row(run: Run) -> dict[str, Any]:
    history, monitor = run.progress.history, run.settings.monitor
    chosen = [row for row in history if row.get(monitor) is not None]
    if not (run.settings.keep_best and chosen):
        return history[-1]
    best = min if monitor.endswith("loss") else max
    return best(chosen, key=lambda row: float(row[monitor]))


def _steps_before(run: Run, index: int) -> int:
    return sum(phase.epochs for phase in run.settings.phases[:index]) * run.steps_an_epoch


def _described(run: Run) -> dict[str, Any]:
    described = {**run.settings.described(), "seed": run.seed, "precision": run.precision}
    described["objective"] = run.objective.name
    described["objective_settings"] = describe_objective(run.objective)
    described["rows"] = run.rows_an_epoch
    described["model"] = run.model.preset or run.model.name
    return {name: "none" if value is None else value for name, value in described.items()}


def _page(run: Run, trainer: TrainingModel, given: PhaseRows, count: int) -> PredictionPage:
    """The page of rows that are spread over the validation rows."""
    encoded, split = run.encoded["validation"], run.data.validation
    chosen = np.unique(np.linspace(0, len(encoded) - 1, count).round().astype(np.int32))
    texts = pixels = None
    if "pixels" in run.model.input:
        pixels = input_rows(run.model, encoded).gather(tf.constant(chosen))["pixels"].numpy()
    else:
        of_text = chosen if encoded.texts is None else encoded.texts[chosen]
        texts = [split.features[text] for text in of_text]

    def predict() -> Any:
        return trainer(given.rows["validation"].gather(tf.constant(chosen)), training=False)

    labels = run.labels("validation")[chosen]
    return PredictionPage(predict, labels, classes=run.model.classes, texts=texts, pixels=pixels)
