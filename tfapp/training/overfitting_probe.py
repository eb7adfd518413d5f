"""Catastrophic overfitting: noticing, while training, that a model resists one step and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks import ATTACKS
from tfapp.data.drawing import draw_rows
from tfapp.errors import ConfigError
from tfapp.training.callbacks import PROBED, RESTORED, EpochProbe
from tfapp.training.checkpoints import assign_values, read_values
from tfapp.training.inference import gradient_batch_size

_LOG = logging.getLogger("tfapp")
SINGLE_STEP, MULTI_STEP = PROBED
_SINGLE_STEP_SLACK = 0.02


class _Measured(NamedTuple):
    """What an epoch's probe has measured."""

    phase: int
    epoch: int
    single_step: float
    multi_step: float


@dataclass(frozen=True)
class Overfitting:
    """An epoch after which a model resists a single step and nothing else, and the one that was put back.

    Attributes:
        phase: Number of its phase, from 1.
        epoch: Its number in the phase, from 1.
        single_step_accuracy: Accuracy under the attack of one step.
        multi_step_accuracy: Accuracy under the attack of several.
        best_phase: Phase of the epoch that was put back.
        best_epoch: Number of the epoch that was put back.
        best_single_step_accuracy: Its accuracy under one step.
        best_multi_step_accuracy: Its accuracy under several.
        norm: ``"linf"`` or ``"l2"``.
        epsilon: Budget of both attacks as a fraction of the pixels' range.
        num_steps: Steps of the attack with several.
        examples: How many validation images were attacked.
    """

    phase: int
    epoch: int
    single_step_accuracy: float
    multi_step_accuracy: float
    best_phase: int
    best_epoch: int
    best_single_step_accuracy: float
    best_multi_step_accuracy: float
    norm: str
    epsilon: float
    num_steps: int
    examples: int

    def __str__(self) -> str:
        best = f"phase {self.best_phase}, epoch {self.best_epoch}"
        return (
            f"phase {self.phase}, epoch {self.epoch}: accuracy under one step is "
            f"{self.single_step_accuracy:.3f} ({self.best_single_step_accuracy:.3f} in {best}), under "
            f"{self.num_steps} steps {self.multi_step_accuracy:.3f} ({self.best_multi_step_accuracy:.3f}), "
            f"norm {self.norm}, epsilon {self.epsilon:.4g}, on {self.examples} validation images: the phase "
            f"ends, and the weights of {best} are put back"
        )


class CatastrophicOverfitting(EpochProbe):
    """Ends a phase of adversarial training whose single step has come to nothing, and undoes the damage.

    Training against a single-step attack can fail within an epoch: the model resists that step better than
    before, and any attack of several steps fools it always. After each epoch some validation images are
    attacked both ways. The model has overfitted when all of this holds:

    * accuracy under several steps is at most ``drop`` times its best of all epochs;
    * accuracy under the single step is no lower than in that best epoch (2 points are allowed for chance),
      and more than twice that under several steps;
    * that best epoch counts: under several steps the model was better than one constant answer.

    Then the phase ends, the weights of that best epoch are put back, also as the run's best ones, and a
    warning names both epochs and the figures. They are in the history as ``val_single_step_accuracy`` and
    ``val_multi_step_accuracy``, and what was found is in ``found``. When a run is resumed, earlier epochs'
    figures count too, and the weights that it resumes from stand for the best until there are better ones.

    Use it with every objective that takes a single step on images. It is of no use in plain training, whose
    model withstands neither attack, and it cannot tell weak robustness that was never better.

    Args:
        split: Validation images with labels.
        epsilon: Budget of both attacks as a fraction of the pixels' range: that of the training.
        norm: ``"linf"`` or ``"l2"``.
        num_steps: Steps of the attack with several.
        random_start: Whether the single step starts at a random point, as the one in training does.
        examples: How many images, drawn by the seed.
        drop: Share of the best accuracy under several steps, from 0 to 1, below which it has collapsed.
        batch_size: Images computed at once; as many as fit when None.
        seed: Seed of the images and of the random starts.

    Attributes:
        found: Where the model has overfitted, in the order of the run, an interrupted one's part included.

    Raises:
        ConfigError: If an argument is out of range.

    Reference:
        Wong, Rice and Kolter (2020), "Fast is better than free", arXiv:2001.03994; Andriushchenko and
        Flammarion (2020), "Understanding and Improving Fast Adversarial Training", arXiv:2007.02617.
    """

    def __init__(
        self,
        split: Any,
        *,
        epsilon: float = 8 / 255,
        norm: str = "linf",
        num_steps: int = 10,
        random_start: bool = True,
        examples: int = 128,
        drop: float = 0.5,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 < drop < 1.0:
            raise ConfigError(f"drop = {drop}: it must be more than 0 and less than 1.")
        for name, value in (("num_steps", num_steps), ("examples", examples), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value}: it must be 1 or more.")
        if not len(split):
            raise ConfigError("the split to probe on has no rows.")
        self.found: list[Overfitting] = []
        self._features, self._labels, _ = draw_rows(split, examples, seed=seed)
        self._budget: dict[str, Any] = {"epsilon": epsilon, "norm": norm}
        self._single: dict[str, Any] = {"random_start": random_start}
        self._several: dict[str, Any] = {"num_steps": num_steps}
        self._drop, self._batch_size, self._seed = drop, batch_size, seed
        self._pixels: npt.NDArray[np.uint8] | None = None
        self._logits: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._constant = float(np.bincount(self._labels).max() / len(self._labels))
        self._best: _Measured | None = None
        self._weights: list[npt.NDArray[Any]] = []

    @property
    def overfitted(self) -> bool:
        """Whether the model has overfitted in any phase."""
        return bool(self.found)

    def take_up(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Learns what an interrupted run has already measured; `tfapp.train` calls it when it resumes.

        Args:
            history: Rows of the epochs so far.
        """
        self.found.clear()
        self._best, self._weights = None, []
        for row in history:
            if isinstance(row.get(MULTI_STEP), float):
                measured = _Measured(row["phase"], row["epoch"], row[SINGLE_STEP], row[MULTI_STEP])
                if self._parted(measured):
                    self._find(measured)
                else:
                    self._note(measured)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Decodes the images, compiles the model, and keeps the weights that a resumed run starts from."""
        model = self.model.whole
        if "pixels" not in model.input:
            raise ConfigError("CatastrophicOverfitting probes images; this model takes texts.")
        if self._pixels is None:
            self._pixels = model.preprocessor.fixed(self._features)[0]["pixels"]
        if self._batch_size is None:
            self._batch_size = gradient_batch_size(*self._pixels.shape[1:3])

        def logits(pixels: tf.Tensor) -> tf.Tensor:
            return tf.cast(model({"pixels": pixels}, training=False), tf.float32)

        spec = tf.TensorSpec([None, *self._pixels.shape[1:]], tf.float32)
        self._logits = tf.function(logits, input_signature=[spec], autograph=False)
        if self._best is not None and not self._weights:
            self._weights = read_values(model.weights)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Attacks the images both ways, and ends the phase when the two have parted."""
        single, several = self._probe()
        if self.workers is not None:
            # Rounding may part them, and with it what they do next.
            single, several = self.workers.from_chief([single, several])
        logs = {} if logs is None else logs
        logs[SINGLE_STEP], logs[MULTI_STEP] = single, several
        measured = _Measured(self.phase, epoch + 1, single, several)
        if self._parted(measured):
            assign_values(self.model.whole.weights, self._weights)
            self.model.stop_training = True
            logs[RESTORED] = 1.0
            _LOG.warning(
                "catastrophic overfitting in %s. Train with a smaller epsilon, a random start, more steps, "
                "or TRADES.",
                self._find(measured),
            )
        elif self._note(measured):
            self._weights = read_values(self.model.whole.weights)

    def _note(self, measured: _Measured) -> bool:
        """Keeps an epoch's figures if they are the best so far, and says whether they are."""
        better = measured.multi_step > (self._constant if self._best is None else self._best.multi_step)
        if better:
            self._best = measured
        return better

    def _parted(self, measured: _Measured) -> bool:
        if self._best is None:
            return False
        single, several = measured.single_step, measured.multi_step
        collapsed = several <= self._drop * self._best.multi_step
        return collapsed and single >= self._best.single_step - _SINGLE_STEP_SLACK and single > 2 * several

    def _find(self, measured: _Measured) -> Overfitting:
        """Records that the model has overfitted, and tells how."""
        assert self._best is not None
        found = Overfitting(
            *measured,
            best_phase=self._best.phase,
            best_epoch=self._best.epoch,
            best_single_step_accuracy=self._best.single_step,
            best_multi_step_accuracy=self._best.multi_step,
            norm=self._budget["norm"],
            epsilon=self._budget["epsilon"],
            num_steps=self._several["num_steps"],
            examples=len(self._labels),
        )
        self.found.append(found)
        return found

    def _probe(self) -> tuple[float, float]:
        """Accuracy under one step, and under several."""
        assert self._pixels is not None
        assert self._logits is not None
        assert self._batch_size is not None
        right = np.zeros(2)
        for number, start in enumerate(range(0, len(self._pixels), self._batch_size)):
            batch = slice(start, start + self._batch_size)
            images = tf.constant(self._pixels[batch], tf.float32)
            labels = tf.constant(self._labels[batch], tf.int32)
            common = {**self._budget, "seed": tf.constant([self._seed, number], tf.int32)}
            single = ATTACKS["fgsm"](self._logits, images, labels, **common, **self._single)
            several = ATTACKS["pgd"](self._logits, images, labels, **common, **self._several)
            for place, pixels in enumerate((single, several)):
                answers = tf.argmax(self._logits(pixels), axis=1, output_type=tf.int32)
                right[place] += int(tf.reduce_sum(tf.cast(answers == labels, tf.int32)))
        one, many = right / len(self._pixels)
        return float(one), float(many)
