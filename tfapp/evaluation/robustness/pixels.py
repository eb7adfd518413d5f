"""Attacks on pixels: white box and black box, through the Keras classifier in inference mode."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks import CompiledModel, loss_in_use
from tfapp.evaluation.robustness.answers import probabilities_of
from tfapp.evaluation.robustness.pixel_budget import BOUNDS, Pixels, check_budget
from tfapp.evaluation.robustness.result import AttackFigures
from tfapp.evaluation.robustness.settings import described
from tfapp.progress import track


class PixelModel:
    """A classifier as attacks see it: pixels to logits, in inference mode, as one compiled function.

    Args:
        model: A classifier with the input ``pixels``.
        batch_size: Rows computed at once.

    Attributes:
        model_fn: From float32 pixels ``(batch, height, width, 3)``, 0 to 255, to float32 logits
            ``(batch, num_classes)``; differentiable. It counts the rows that it is asked about.
        batch_size: Rows computed at once.
        temperature: What the logits are divided by for probabilities.
        num_classes: How many classes it knows.
    """

    def __init__(self, model: Any, *, batch_size: int) -> None:
        size = model.input["pixels"].shape[1:]
        self._asked = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.batch_size = batch_size
        self.temperature = float(model.temperature)
        self.num_classes = len(model.classes)

        def logits(pixels: tf.Tensor) -> tf.Tensor:
            self._asked.assign_add(tf.shape(pixels, tf.int64)[0])
            return tf.cast(model({"pixels": pixels}, training=False), tf.float32)

        spec = tf.TensorSpec([None, *size], tf.float32)
        self.model_fn = CompiledModel(tf.function(logits, input_signature=[spec], autograph=False))

    @property
    def queries(self) -> int:
        """Rows that were asked about so far."""
        return int(self._asked.numpy())

    def predict(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Computes the probabilities of any number of rows.

        Args:
            pixels: ``(rows, height, width, 3)``, 0 to 255.

        Returns:
            ``(rows, num_classes)``.
        """
        logits = [
            self.model_fn(tf.constant(pixels[start : start + self.batch_size], tf.float32)).numpy()
            for start in range(0, len(pixels), self.batch_size)
        ]
        return probabilities_of(np.concatenate(logits), self.temperature)


@dataclass(frozen=True)
class PixelOutcome:
    """What attacks made of rows.

    Attributes:
        survived: Which rows are answered rightly before and after, ``(rows,)``.
        adversarial: float32 pixels of every row: those that fool the model, or the first attack's attempt;
            rows that were wrong before stay as they are.
        per_attack: The attacks in their order.
        left: Which rows each attack left, by name.
    """

    survived: npt.NDArray[np.bool_]
    adversarial: Pixels
    per_attack: tuple[AttackFigures, ...]
    left: dict[str, npt.NDArray[np.bool_]]


def attack_pixels(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    right: npt.NDArray[np.bool_],
    attacks: Sequence[tuple[str, Callable[..., Any], dict[str, Any]]],
    *,
    epsilon: float,
    norm: str,
    seed: int,
) -> PixelOutcome:
    """Runs attacks one after another, each on the rows that the ones before left.

    What an attack returns is judged here, not by the attack: the model is asked again, and a perturbation
    beyond the budget is refused.

    Args:
        victim: The model.
        pixels: The rows ``(rows, height, width, 3)``.
        labels: Their classes ``(rows,)``.
        right: Which of them the model answers rightly, ``(rows,)``; only these are attacked.
        attacks: Names, attacks and their own arguments.
        epsilon: The budget as a fraction of 0..255.
        norm: ``"linf"`` or ``"l2"``.
        seed: Seed of what is drawn; every batch draws anew.

    Returns:
        The outcome.

    Raises:
        ConfigError: If an attack goes beyond its budget.
    """
    adversarial = pixels.astype(np.float32)
    survived = right.copy()
    figures: list[AttackFigures] = []
    left: dict[str, npt.NDArray[np.bool_]] = {}
    for number, (name, attack, arguments) in enumerate(attacks):
        rows = np.flatnonzero(survived)
        asked, started = victim.queries, time.perf_counter()
        made = _run(victim, pixels, labels, rows, name, attack, arguments, epsilon, norm, seed)
        queries = victim.queries - asked
        check_budget(name, made, pixels[rows], epsilon=epsilon, norm=norm)
        fooled = victim.predict(made).argmax(axis=1) != labels[rows] if len(rows) else np.zeros(0, bool)
        seconds = time.perf_counter() - started
        kept = np.ones(len(rows), bool) if number == 0 else fooled
        adversarial[rows[kept]] = made[kept]
        survived[rows[fooled]] = False
        left[name] = survived.copy()
        figures.append(
            AttackFigures(
                name=name,
                attacked=len(rows),
                fooled=int(fooled.sum()),
                robust_accuracy=float(survived.mean()),
                queries=queries,
                seconds=seconds,
                settings=_stated(victim, attack, arguments),
            )
        )
    return PixelOutcome(survived, adversarial, tuple(figures), left)


def run_attack(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    attack: Callable[..., Any],
    *,
    seed: int,
    label: str = "",
    **arguments: Any,
) -> Pixels:
    """Runs one attack over any number of rows, batch by batch.

    Args:
        victim: The model.
        pixels: The rows ``(rows, height, width, 3)``.
        labels: Their classes ``(rows,)``.
        attack: The attack.
        seed: Seed of what is drawn; every batch draws anew.
        label: What the progress bar says.
        **arguments: Arguments of the attack. One that takes a ``batch_size`` is given all rows at once.

    Returns:
        float32 pixels of the same shape.
    """
    made = np.empty(pixels.shape, np.float32)
    size = victim.batch_size
    if "batch_size" in inspect.signature(attack).parameters:
        # Such an attack refills its batches as rows are done with.
        arguments, size = {**arguments, "batch_size": size}, max(1, len(pixels))
    starts = range(0, len(pixels), size)
    for number, start in enumerate(track(starts, len(starts), label or "attack")):
        batch = slice(start, start + size)
        made[batch] = attack(
            victim.model_fn,
            tf.constant(pixels[batch], tf.float32),
            tf.constant(labels[batch], tf.int32),
            bounds=BOUNDS,
            seed=tf.constant([seed, number], tf.int32),
            **arguments,
        ).numpy()
    return made


def _stated(victim: PixelModel, attack: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The settings of an attack, with the loss that it raises where DLR needs more classes."""
    loss = loss_in_use(attack, arguments, victim.num_classes)
    return {**described(attack, arguments), **({} if loss is None else {"loss": loss})}


def _run(
    victim: PixelModel,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    rows: npt.NDArray[np.int64],
    name: str,
    attack: Callable[..., Any],
    arguments: dict[str, Any],
    epsilon: float,
    norm: str,
    seed: int,
) -> Pixels:
    return run_attack(
        victim,
        pixels[rows],
        labels[rows],
        attack,
        seed=seed,
        label=f"attack with {name}",
        epsilon=epsilon,
        norm=norm,
        **arguments,
    )
