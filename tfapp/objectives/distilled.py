"""A student learns what its teacher answers, and how the teacher's blocks read a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import tensorflow as tf

from tfapp.errors import ConfigError, nearest
from tfapp.objectives._step import StepResult, TrainableModel

HIDDEN_LOSSES = ("cosine", "mse")
TEACHER_LOGITS = "teacher_logits"
"""The teacher's logits of each row, float32 ``(batch, num_classes)``, among the inputs of a batch."""
LABELLED = "labelled"
"""Whether a row's label is the data's own, float32 ``(batch,)``: 1, or 0 for rows without one."""


class Teacher(Protocol):
    """What a teacher gives beside the inputs of a batch."""

    @property
    def layers(self) -> Sequence[int]:
        """For each block of the student the number of the teacher's, from 1, that it is compared with."""

    def hidden_states(self, inputs: Mapping[str, Any]) -> list[tf.Tensor]:
        """The teacher's hidden states in inference mode, ``(batch, sequence, hidden)``.

        Args:
            inputs: The student's inputs of a batch, and what stands beside them.

        Returns:
            What enters the first block, then what each of ``layers`` gives.
        """

    def extra_inputs(self, rows: int, length: int, *, states: bool) -> dict[str, tf.TensorSpec]:
        """The shapes of all that stands beside the student's inputs, ``states`` where they are compared."""

    def described(self) -> dict[str, Any]:
        """The teacher by plain values, for keys and records."""


class Distilled:
    """Minimises a weighed sum of three losses, each the mean over the rows of the batch.

    They are the cross-entropy of the labels; ``temperature^2`` times the Kullback-Leibler divergence of the
    student's probabilities from the teacher's, both softened by the temperature; and the distance of hidden
    states, the mean over tokens that are no padding, and over the embeddings and the student's blocks. Rows
    without a label have no part in the first.

    Not to be used where the teacher is no better than what the labels alone teach the student.

    Args:
        temperature: What logits are divided by in the second loss, more than 0.
        label_weight: Weight of the labels' loss, 0 or more.
        logits_weight: Weight of the logits' loss, 0 or more.
        hidden_weight: Weight of the hidden states' loss, 0 or more.
        hidden_loss: ``"cosine"`` for one minus the cosine of the angle between two states of a token, or
            ``"mse"`` for the mean squared difference of their numbers.
        teacher: The teacher; `tfapp.distill` gives it.

    Raises:
        ConfigError: When an argument is unknown or out of range.

    Reference:
        Hinton et al. 2015, arXiv:1503.02531 (softened logits); Sanh et al. 2019, DistilBERT, arXiv:1910.01108
        (cosine); Jiao et al. 2020, TinyBERT, arXiv:1909.10351 (hidden states of matched blocks).
    """

    name = "distilled"

    def __init__(
        self,
        temperature: float = 2.0,
        label_weight: float = 0.5,
        logits_weight: float = 1.0,
        hidden_weight: float = 1.0,
        hidden_loss: Literal["cosine", "mse"] = "cosine",
        teacher: Teacher | None = None,
    ) -> None:
        if not 0.0 < temperature < math.inf:
            raise ConfigError(f"temperature = {temperature}: it must be a finite number, more than 0.")
        weights = {
            "label_weight": label_weight,
            "logits_weight": logits_weight,
            "hidden_weight": hidden_weight,
        }
        for name, weight in weights.items():
            if not 0.0 <= weight < math.inf:
                raise ConfigError(f"{name} = {weight}: it must be a finite number, 0 or more.")
        if not any(weights.values()):
            raise ConfigError("label_weight, logits_weight and hidden_weight are all 0: nothing is learned.")
        if hidden_loss not in HIDDEN_LOSSES:
            raise ConfigError(f"unknown hidden_loss {hidden_loss!r}; {nearest(hidden_loss, HIDDEN_LOSSES)}")
        self.temperature = float(temperature)
        self.label_weight = float(label_weight)
        self.logits_weight = float(logits_weight)
        self.hidden_weight = float(hidden_weight)
        self.hidden_loss = hidden_loss
        self.teacher = teacher

    @property
    def compares_states(self) -> bool:
        """Whether hidden states are compared, for which `TrainableModel.hidden_states` must be there."""
        return self.hidden_weight > 0.0

    def extra_inputs(self, rows: int, length: int) -> dict[str, tf.TensorSpec]:
        """The shapes of what stands beside the student's inputs in a batch, for estimates of memory.

        Args:
            rows: Rows of the batch.
            length: Tokens of the longest.
        """
        assert self.teacher is not None
        return self.teacher.extra_inputs(rows, length, states=self.compares_states)

    def step(self, model: TrainableModel, inputs: Any, labels: Any, sample_weight: Any) -> StepResult:
        """Computes loss, logits and gradients of one batch.

        Args:
            model: The student in training.
            inputs: Its inputs, each ``(batch, ...)``, and beside them `TEACHER_LOGITS`, `LABELLED` and what
                the teacher asks for.
            labels: Class indices, int32 ``(batch,)``; of rows without a label the teacher's answer.
            sample_weight: float32 ``(batch,)`` or None.

        Returns:
            The loss, the logits and one gradient a trainable variable.
        """
        assert self.teacher is not None
        own = dict(inputs)
        answers, labelled = own.pop(TEACHER_LOGITS), own.pop(LABELLED)
        label_weights = labelled if sample_weight is None else labelled * tf.cast(sample_weight, tf.float32)
        targets = self.teacher.hidden_states(inputs) if self.compares_states else []
        own = {name: value for name, value in own.items() if not name.startswith("teacher_")}
        with tf.GradientTape() as tape:
            states: Sequence[tf.Tensor] = ()
            if self.compares_states:
                logits, states = model.hidden_states(own, training=True)
            else:
                logits = model(own, training=True)
            loss = model.supervised_loss(own, labels, logits, self.label_weight * label_weights)
            taught = self.logits_weight * soft_divergence(answers, logits, self.temperature)
            if self.compares_states:
                distance = state_distance(targets, states, own["padding_mask"], self.hidden_loss)
                taught += self.hidden_weight * distance
            loss += model.scaled_mean(taught, sample_weight)
        gradients = tape.gradient(loss, list(model.trainable_variables))
        return StepResult(model.unscaled(loss), logits, gradients)


def soft_divergence(teacher: Any, student: Any, temperature: float) -> tf.Tensor:
    """Computes the divergence of the student's softened probabilities from the teacher's.

    Args:
        teacher: Logits, float32 ``(batch, num_classes)``.
        student: Logits, float32 ``(batch, num_classes)``.
        temperature: What both are divided by.

    Returns:
        ``temperature^2`` times the Kullback-Leibler divergence in nats, float32 ``(batch,)``: gradients are
        then about as large at every temperature.
    """
    wanted = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / temperature)
    given = tf.nn.log_softmax(tf.cast(student, tf.float32) / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(wanted) * (wanted - given), axis=-1)


def state_distance(
    teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor], padding_mask: Any, kind: str
) -> tf.Tensor:
    """Computes how far hidden states are from those that they are compared with.

    Args:
        teacher: States ``(batch, sequence, hidden)``.
        student: As many of the same shape.
        padding_mask: int32 ``(batch, sequence)``.
        kind: One of `HIDDEN_LOSSES`.

    Returns:
        The mean over tokens and over states, float32 ``(batch,)``.
    """
    mask = tf.cast(padding_mask, tf.float32)
    total = tf.zeros_like(mask)
    for wanted, given in zip(teacher, student, strict=True):
        one, other = tf.cast(wanted, tf.float32), tf.cast(given, tf.float32)
        if kind == "mse":
            total += tf.reduce_mean(tf.square(one - other), axis=-1)
        else:
            product = tf.nn.l2_normalize(one, axis=-1) * tf.nn.l2_normalize(other, axis=-1)
            total += 1.0 - tf.reduce_sum(product, axis=-1)
    tokens = tf.maximum(tf.reduce_sum(mask, axis=-1), 1.0)
    return tf.reduce_sum(total * mask, axis=-1) / (tokens * len(teacher))
