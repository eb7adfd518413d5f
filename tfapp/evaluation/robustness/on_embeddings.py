"""Robustness of text classifiers in the space of their token embeddings, through the weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import softmax  # type: ignore[import-untyped]

from tfapp.attacks import ATTACKS, make_attack
from tfapp.errors import ConfigError
from tfapp.evaluation.alarms import Alarm, does_not_fall_to_zero, zero_gradients
from tfapp.evaluation.robustness.measured import Measured
from tfapp.evaluation.robustness.probes import PROBE_ROWS, UNBOUNDED_STEPS
from tfapp.evaluation.robustness.result import AttackFigures
from tfapp.evaluation.robustness.settings import AttackSettings, described
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
    probed = np.flatnonzero(right)[:PROBE_ROWS]
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
        self.queries = 0
        self._rows = input_rows(model, model.preprocessor.encode(list(texts)))
        self._labels, self._batch_size = labels, batch_size
        self._temperature, self._num_classes = float(model.temperature), len(model.classes)
        embed, rest = cut_at_embeddings(model)
        self._embed = tf.function(lambda inputs: embed(inputs, training=False), reduce_retracing=True)

        def logits(embeddings: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
            return tf.cast(rest({"embeddings": embeddings, **inputs}, training=False), tf.float32)

        self._logits = tf.function(logits, reduce_retracing=True)

    def run(
        self, attack: Any, rows: npt.NDArray[np.integer], seed: int, **arguments: Any
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Attacks rows; answers their probabilities before and after."""
        shape = (len(rows), self._num_classes)
        before, after = np.zeros(shape), np.zeros(shape)
        for number, (places, inputs, classes) in enumerate(self._batches(rows)):
            embeddings = self._embed(inputs)

            def model_fn(points: tf.Tensor, inputs: dict[str, tf.Tensor] = inputs) -> tf.Tensor:
                self.queries += int(points.shape[0])
                return self._logits(points, _others(inputs))

            made = attack(
                model_fn,
                embeddings,
                classes,
                mask=inputs["padding_mask"],
                seed=tf.constant([seed, number], tf.int32),
                **arguments,
            )
            before[places] = self._probabilities(embeddings, inputs)
            after[places] = self._probabilities(made, inputs)
        return before, after

    def zero_rows(self, rows: npt.NDArray[np.integer]) -> int:
        """Counts rows whose cross-entropy has no gradient at the embeddings."""
        count = 0
        for _, inputs, classes in self._batches(rows):
            embeddings = self._embed(inputs)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(embeddings)
                logits = self._logits(embeddings, _others(inputs))
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
            gradient = tf.cast(tape.gradient(loss, embeddings, unconnected_gradients="zero"), tf.float32)
            largest = tf.reduce_max(tf.abs(gradient), axis=[1, 2])
            count += int(tf.reduce_sum(tf.cast(~(largest >= np.finfo(np.float32).tiny), tf.int32)))
        return count

    def _batches(self, rows: npt.NDArray[np.integer]) -> Any:
        """Rows of similar length together: their places among ``rows``, inputs and classes."""
        order = np.argsort(self._rows.lengths[rows], kind="stable")
        starts = range(0, len(order), self._batch_size)
        for start in track(starts, len(starts), "attack embeddings"):
            places = order[start : start + self._batch_size]
            inputs = self._rows.gather(tf.constant(rows[places], tf.int32))
            yield places, inputs, tf.constant(self._labels[rows[places]], tf.int32)

    def _probabilities(self, embeddings: tf.Tensor, inputs: dict[str, tf.Tensor]) -> npt.NDArray[np.float64]:
        logits = self._logits(embeddings, _others(inputs)).numpy().astype(np.float64)
        probabilities: npt.NDArray[np.float64] = softmax(logits / self._temperature, axis=1)
        return probabilities


def _others(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: tensor for name, tensor in inputs.items() if name != "token_ids"}


def cut_at_embeddings(model: Any) -> tuple[keras.Model, keras.Model]:
    """Cuts a text classifier in two at the vectors of its tokens, before positions are added.

    Args:
        model: A functional classifier on a backbone with a layer ``token_embedding``.

    Returns:
        The part from the model's inputs to ``(batch, sequence, hidden)``, and the part from these, under the
        name ``embeddings``, and the inputs other than ``token_ids`` to logits. Both share its weights.

    Raises:
        ConfigError: If the model has no such layer.
    """
    layers = [layer for layer in model.layers if layer.name == "token_embedding"]
    if len(layers) != 1:
        raise ConfigError(
            "this model has no layer 'token_embedding', where attacks on embeddings cut: BERT models of "
            "keras-hub have one. Attack its words instead."
        )
    vectors = layers[0].output
    others = {name: tensor for name, tensor in model.input.items() if name != "token_ids"}
    return keras.Model(model.input, vectors), keras.Model({"embeddings": vectors, **others}, model.output)
