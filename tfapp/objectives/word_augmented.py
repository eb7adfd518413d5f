"""Training on changed words: of random variants of each text, the one that the model gets most wrong."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.objectives._passes import add
from tfapp.objectives._perturbation import check_count, check_number
from tfapp.objectives._step import StepResult, TrainableModel


class WordAugmented:
    """Minimises ``(1 - w) * L(text) + w * L(worst of its random variants)``.

    The variants are drawn anew in every epoch by the operators that ``augment`` names, and come with the
    batch as ``inputs["variants"]``; the model in inference mode chooses among them. It hardens against the
    kinds of changes that it is given, where gradients on embeddings harden against none in particular; the
    two do not go together in one step. Each variant beyond the first costs a forward pass, the first a whole
    training step. No features are cached: a frozen backbone too is computed for the text and each variant.
    Not with edits that your users never make, nor with those that change what a text means.

    Args:
        variants: How many are drawn for each text, 1 or more; with 1 none is chosen.
        adversarial_weight: ``w``, from 0 to 1.

    Raises:
        ConfigError: When an argument is out of range.

    Reference:
        Ivgi and Berant 2021, Achieving Model Robustness through Discrete Adversarial Training,
        arXiv:2104.05062 (online augmentation by random sampling).
    """

    name = "word_augmented"

    def __init__(self, variants: int = 4, adversarial_weight: float = 0.5) -> None:
        self.variants = check_count("variants", variants)
        self.adversarial_weight = check_number("adversarial_weight", adversarial_weight, most=1.0)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch; see `Objective.step`.

        Args:
            model: The model in training.
            inputs: Its inputs, and ``variants``: the same names, each ``(batch, variants, length)``.
            labels: Class indices or distributions, as in `Objective.step`.
            sample_weight: float32 ``(batch,)`` or None.

        Returns:
            The loss, the logits of the unchanged texts, and one gradient a trainable variable.

        Raises:
            ConfigError: When the batch has no variants.
        """
        if "variants" not in inputs:
            raise ConfigError(
                f"objective {self.name!r} trains on variants of texts, and the inputs {sorted(inputs)} hold "
                "none: make batches by TextAugmentation.for_batches with variants, or call tfapp.train with "
                "augment."
            )
        texts = {name: values for name, values in inputs.items() if name != "variants"}
        worst = self._worst(model, inputs["variants"], labels)
        shares = (1.0 - self.adversarial_weight, self.adversarial_weight)
        variables = list(model.trainable_variables)
        losses, answers, gradients = [], [], []
        # One tape a pass: what the first one kept is free before the second begins.
        for given, share in zip((texts, worst), shares, strict=True):
            with tf.GradientTape() as tape:
                logits = model(given, training=True)
                loss = share * model.supervised_loss(given, labels, logits, sample_weight)
            gradients.append(tape.gradient(loss, variables))
            losses.append(loss)
            answers.append(logits)
        totals = [add(pair) for pair in zip(*gradients, strict=True)]
        return StepResult(model.unscaled(tf.add_n(losses)), answers[0], totals)

    def _worst(self, model: TrainableModel, variants: Any, labels: Any) -> dict[str, tf.Tensor]:
        """Chooses the variant of each text whose cross-entropy is highest."""
        shape = tf.shape(next(iter(variants.values())))
        rows, count, length = shape[0], shape[1], shape[2]
        flat = {name: tf.reshape(values, [-1, length]) for name, values in variants.items()}
        if self.variants == 1:
            return flat
        logits = model.infer(flat)
        truth = tf.repeat(labels, count, axis=0)
        if labels.dtype.is_floating:
            losses = tf.nn.softmax_cross_entropy_with_logits(truth, logits)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits)
        chosen = tf.argmax(tf.reshape(losses, [rows, count]), axis=1, output_type=tf.int32)
        places = tf.range(rows) * count + chosen
        return {name: tf.gather(values, places) for name, values in flat.items()}
