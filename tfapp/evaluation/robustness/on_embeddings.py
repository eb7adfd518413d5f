"""Robustness of text classifiers in the space of their token embeddings, through the weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfapp.attacks import ATTACKS, make_attack
from tfapp.data.drawing import draw_numbers
from tfapp.errors import ConfigError
from tfapp.evaluation.alarms import Alarm, does_not_fall_to_zero, zero_gradients
from tfapp.evaluation.robustness.answers import probabilities_of, without_gradient
from tfapp.evaluation.robustness.measured import Measured
from tfapp.evaluation.robustness.probes import PROBE_ROWS, UNBOUNDED_STEPS
from tfapp.evaluation.robustness.result import AttackFigures
from tfapp.evaluation.robustness.settings import AttackSettings, check_options, described
from tfapp.progress import track
from tfapp.training.inference import input_rows

_UNBOUNDED = 5.0
"""A perturbation of so many times the embeddings' own norm leaves nothing of the text."""


def measure_embeddings(
    model: Any,
    texts: Sequence[str],
    labels: npt.NDArray[np.integer],
    settings: AttackSettings,
    options: Mapping[str, Any],
    *,
    batch_size: int,
    alarms: bool,
) -> Measured:
    """Perturbs token embeddings, relative to each text's own norm; padding stays as it is.

    The points that are reached are no texts: this probes how smooth a model is, and what training on
    embeddings bought; it is no measure of attacks on words. Texts in windows are not supported.

    Args:
        model: A text classifier whose backbone has a layer ``token_embedding``.
        texts: The texts.
        labels: Their classes ``(rows,)``.
        settings: What was asked for.
        options: Further arguments of the attack.
        batch_size: Rows computed at once.
        alarms: Whether to look for signs of masked gradients.

    Returns:
        What was measured.

    Raises:
        ConfigError: If the attack lacks a setting, or the model cannot be cut at its embeddings.
    """
    name, attack = settings.attack, ATTACKS[settings.attack]
    check_options(options, "embeddings")
    make_attack(name, **options)  # refuses what the attack does not take
    arguments = {**settings.own_arguments(name, attack), **options}
    norm, epsilon = settings.norm_of("embeddings"), settings.epsilon_of("embeddings", attack)
    if model.preprocessor.long_texts == "windows":
        raise ConfigError("attacks on embeddings take texts in one piece; this model splits them in windows.")
    victim = _EmbeddingModel(model, texts, labels, batch_size=batch_size)
    started = time.perf_counter()
    before, after = victim.run(attack, np.arange(len(texts)), settings.seed, epsilon=epsilon, **arguments)
    right = before.argmax(axis=1) == labels
    survived = right & (after.argmax(axis=1) == labels)
    figures = AttackFigures(
        name=name,
        attacked=int(right.sum()),
        fooled=int(np.sum(right & ~survived)),
        robust_accuracy=float(survived.mean()),
        queries=victim.queries,
        seconds=time.perf_counter() - started,
        settings=described(attack, arguments),
    )
    found: tuple[Alarm | None, ...] = ()
    probed = draw_numbers(np.flatnonzero(right), PROBE_ROWS, seed=settings.seed)
    if alarms and len(probed):
        _, far = victim.run(
            ATTACKS["embedding_pgd"],
            probed,
            settings.seed,
            epsilon=_UNBOUNDED,
            num_steps=UNBOUNDED_STEPS,
        )
        survivors = int(np.sum(far.argmax(axis=1) == labels[probed]))
        found = (
            zero_gradients(attack=name, zero_rows=victim.zero_rows(probed), probed=len(probed)),
            does_not_fall_to_zero(
                attack=name, epsilon=f"{_UNBOUNDED:g}", survivors=survivors, probed=len(probed)
            ),
        )
    return Measured(
        domain="embeddings",
        norm=norm,
        epsilon=epsilon,
        before=before,
        after=np.where(right[:, None], after, before),
        survived=survived,
        per_attack=(figures,),
        alarms=tuple(alarm for alarm in found if alarm is not None),
        checked=("zero_gradients", "does_not_fall_to_zero") if alarms else (),
    )


class _EmbeddingModel:
    """A text classifier cut at its token embeddings, with the rows that it is asked about."""

    def __init__(
        self, model: Any, texts: Sequence[str], labels: npt.NDArray[np.integer], *, batch_size: int
    ) -> None:
        self._rows = input_rows(model, model.preprocessor.encode(list(texts)))
        self._labels, self._batch_size = labels, batch_size
        self._temperature, self._num_classes = float(model.temperature), len(model.classes)
        self._below, self._above = model.split_at_embeddings()
        self._asked = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._inputs = {name: tf.TensorSpec([None, None], tf.int32) for name in model.input}

    @property
    def queries(self) -> int:
        """Rows that were asked about so far."""
        return int(self._asked.numpy())

    def run(
        self, attack: Any, rows: npt.NDArray[np.integer], seed: int, **arguments: Any
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Attacks rows; answers their probabilities before and after."""

        def attacked(
            inputs: dict[str, tf.Tensor], labels: tf.Tensor, seed: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            def asked(points: tf.Tensor) -> tf.Tensor:
                self._asked.assign_add(tf.shape(points, tf.int64)[0])
                return self._logits(points, inputs)

            points = self._below(inputs, training=False)
            mask = inputs["padding_mask"]
            made = attack(asked, points, labels, mask=mask, seed=seed, **arguments)
            return self._logits(points, inputs), self._logits(made, inputs)

        signature = [self._inputs, tf.TensorSpec([None], tf.int32), tf.TensorSpec([2], tf.int32)]
        compiled = tf.function(attacked, input_signature=signature, autograph=False)
        answers = np.zeros((2, len(rows), self._num_classes))
        for number, (places, inputs, classes) in enumerate(self._batches(rows)):
            answers[:, places] = compiled(inputs, classes, tf.constant([seed, number], tf.int32))
        before, after = probabilities_of(answers, self._temperature)
        return before, after

    def zero_rows(self, rows: npt.NDArray[np.integer]) -> int:
        """Counts rows whose cross-entropy has no gradient at the embeddings."""

        def flat(inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
            points = self._below(inputs, training=False)
            return without_gradient(lambda points: self._logits(points, inputs), points, labels)

        signature = [self._inputs, tf.TensorSpec([None], tf.int32)]
        compiled = tf.function(flat, input_signature=signature, autograph=False)
        return sum(
            int(np.sum(compiled(inputs, classes).numpy())) for _, inputs, classes in self._batches(rows)
        )

    def _logits(self, points: tf.Tensor, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.cast(self._above({**inputs, "token_embeddings": points}, training=False), tf.float32)

    def _batches(self, rows: npt.NDArray[np.integer]) -> Any:
        """Rows of similar length together: their places among ``rows``, inputs and classes."""
        order = np.argsort(self._rows.lengths[rows], kind="stable")
        starts = range(0, len(order), self._batch_size)
        for start in track(starts, len(starts), "attack embeddings"):
            places = order[start : start + self._batch_size]
            inputs = self._rows.gather(tf.constant(rows[places], tf.int32))
            yield places, inputs, tf.constant(self._labels[rows[places]], tf.int32)
