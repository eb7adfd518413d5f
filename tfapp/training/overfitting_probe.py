"""Catastrophic overfitting: noticing, while training, that a model resists one step and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    ``val_multi_step_accuracy``. When a run is resumed, earlier epochs' figures count too, and the weights
    that it resumes from stand for the best until there are better ones.

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
        self.overfitted = False
        self._features, self._labels, _ = draw_rows(split, examples, seed=seed)
        self._budget: dict[str, Any] = {"epsilon": epsilon, "norm": norm}
        self._single: dict[str, Any] = {"random_start": random_start}
        self._several: dict[str, Any] = {"num_steps": num_steps}
        self._drop, self._batch_size, self._seed = drop, batch_size, seed
        self._pixels: npt.NDArray[np.uint8] | None = None
        self._logits: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._constant = float(np.bincount(self._labels).max() / len(self._labels))
        self._best: tuple[str, float, float] | None = None
        self._weights: list[npt.NDArray[Any]] = []

    def take_up(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Learns what an interrupted run has already measured; `tfapp.train` calls it when it resumes.

        Args:
            history: Rows of the epochs so far.
        """
        for row in history:
            if isinstance(row.get(MULTI_STEP), float):
                place = f"phase {row['phase']}, epoch {row['epoch']}"
                self._note(place, row[SINGLE_STEP], row[MULTI_STEP])

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
        logs = {} if logs is None else logs
        logs[SINGLE_STEP], logs[MULTI_STEP] = single, several
        place = f"epoch {epoch + 1}"
        if self._best is not None and self._parted(single, several):
            best_place, best_single, best_several = self._best
            assign_values(self.model.whole.weights, self._weights)
            self.overfitted = True
            self.model.stop_training = True
            logs[RESTORED] = 1.0
            _LOG.warning(
                "catastrophic overfitting in %s: accuracy under one step is %.3f (%.3f in %s), under %d "
                "steps %.3f (%.3f): the phase ends, and the weights of %s are put back. Train with a smaller "
                "epsilon, a random start, more steps, or TRADES.",
                place,
                single,
                best_single,
                best_place,
                self._several["num_steps"],
                several,
                best_several,
                best_place,
            )
            return
        if self._note(place, single, several):
            self._weights = read_values(self.model.whole.weights)

    def _note(self, place: str, single: float, several: float) -> bool:
        """Keeps an epoch's figures if they are the best so far, and says whether they are."""
        better = several > (self._constant if self._best is None else self._best[2])
        if better:
            self._best = place, single, several
        return better

    def _parted(self, single: float, several: float) -> bool:
        assert self._best is not None
        _, best_single, best_several = self._best
        collapsed = several <= self._drop * best_several
        return collapsed and single >= best_single - _SINGLE_STEP_SLACK and single > 2 * several

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
