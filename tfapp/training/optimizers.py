"""AdamW and SGD for fine-tuning, one fused pass a variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfapp.training.schedules import WarmupDecay
from tfapp.training.settings import TrainSettings

_UNDECAYED = ("bias", "gamma", "beta", "embeddings")


def _merged(gradient: Any) -> Any:
    """Adds up the rows of a sparse gradient that belong to the same row of the variable."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(indices))
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def _replicas() -> int:
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _shrink(variable: Any, share: Any) -> Any:
    """Takes a share of a variable's size away, in place."""
    with tf.control_dependencies(
        [tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=share, delta=variable)]
    ):
        return tf.constant(True)


class FusedOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """What the optimizers below share: clipping, decay of matrices now and then, rates by variable.

    Biases, normalisation parameters and embeddings are not decayed.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled decay, 0 or more.
        decay_every: Steps from one decay to the next, which is as many times as strong: a pass over all
            weights for a change of some 1e-7 of their size is the dearest part of a step.
        total_steps: The step at whose end the decay of the last steps is caught up; None never does.
        clip_norm: Gradients are scaled so that their global norm is at most this; None leaves them.
        rate_factors: Factor of the learning rate by variable path; 1 where a path is missing.
        **kwargs: What every Keras optimizer takes, such as ``name``.

    Reference:
        Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """

    moments: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: Any = 5e-5,
        *,
        weight_decay: float = 0.01,
        decay_every: int = 10,
        total_steps: int | None = None,
        clip_norm: float | None = 1.0,
        rate_factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.decay, self.decay_every, self.total_steps = weight_decay, decay_every, total_steps
        self.clip_norm = clip_norm
        self.rate_factors = dict(rate_factors or {})

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the moments of each variable."""
        if self.built:
            return
        super().build(variables)
        self._moments = self.add_optimizer_variables(variables, list(self.moments))
        self._factor_of = [self.rate_factors.get(v.path, 1.0) for v in variables]
        self._decay_of = [
            0.0 if len(v.shape) < 2 or v.path.rsplit("/", 1)[-1].endswith(_UNDECAYED) else self.decay
            for v in variables
        ]

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        # Of several replicas, each has a part of the gradient: it is clipped when they have been added up.
        return [_merged(gradient) for gradient in grads] if _replicas() > 1 else self._clipped(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        if _replicas() == 1:
            return list(reduced)
        gradients, variables = zip(*reduced, strict=True)
        return list(zip(self._clipped(gradients), variables, strict=True))

    def _clipped(self, grads: Sequence[Any]) -> list[Any]:
        merged = [_merged(gradient) for gradient in grads]
        if self.clip_norm is None:
            return merged
        scale = self.clip_norm / tf.maximum(tf.linalg.global_norm(merged), self.clip_norm)
        return [
            tf.IndexedSlices(g.values * scale, g.indices, g.dense_shape)
            if isinstance(g, tf.IndexedSlices)
            else g * scale
            for g in merged
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments.

        Args:
            gradient: Dense float32, or `tf.IndexedSlices` in which no row stands twice.
            variable: The `tf.Variable`.
            learning_rate: float32 scalar.
        """
        index = self._get_variable_index(variable)
        moments = [of_each[index].value for of_each in self._moments]
        rate = tf.cast(learning_rate, variable.dtype) * self._factor_of[index]
        if isinstance(gradient, tf.IndexedSlices):
            self._update_rows(gradient, variable, moments, rate)
            return
        if self._decay_of[index]:
            since = self.iterations % self.decay_every + 1
            due = tf.equal(since, self.decay_every)
            if self.total_steps is not None:
                due = tf.logical_or(due, tf.equal(self.iterations + 1, self.total_steps))
            shrink = rate * self._decay_of[index] * tf.cast(since, rate.dtype)
            tf.cond(due, lambda: _shrink(variable, shrink), lambda: tf.constant(False))
        self._update(gradient, variable, moments, rate)

    def _update(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        raise NotImplementedError

    def _update_rows(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal optimizer."""
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "decay_every": self.decay_every,
            "total_steps": self.total_steps,
            "clip_norm": self.clip_norm,
            "rate_factors": self.rate_factors,
        }


@keras.saving.register_keras_serializable("tfapp")
class FusedAdamW(FusedOptimizer):
    """AdamW whose dense update is one pass over memory, and whose embedding update touches used rows only.

    Moments of embedding rows that a batch does not use stay as they are (*lazy* Adam), so a step costs
    nothing for the rest of the vocabulary.

    Args:
        learning_rate: A number or a schedule.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        name: Name of the optimizer.
        **kwargs: What `FusedOptimizer` takes.
    """

    moments = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: Any = 5e-5,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "fused_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _powers(self, dtype: Any) -> tuple[Any, Any]:
        step = tf.cast(self.iterations + 1, dtype)
        return tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)

    def _update(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        power_1, power_2 = self._powers(variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moments[0].handle,
            v=moments[1].handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _update_rows(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        power_1, power_2 = self._powers(variable.dtype)
        rows, values = gradient.indices, gradient.values
        first = tf.gather(moments[0], rows) * self.beta_1 + values * (1 - self.beta_1)
        second = tf.gather(moments[1], rows) * self.beta_2 + tf.square(values) * (1 - self.beta_2)
        moments[0].scatter_update(tf.IndexedSlices(first, rows))
        moments[1].scatter_update(tf.IndexedSlices(second, rows))
        rate = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        variable.scatter_sub(tf.IndexedSlices(rate * first / (tf.sqrt(second) + self.epsilon), rows))

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal optimizer."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tfapp")
class FusedSGD(FusedOptimizer):
    """Stochastic gradient descent with Nesterov momentum, in one pass over memory.

    The momentum of embedding rows that a batch does not use stays as it is.

    Args:
        learning_rate: A number or a schedule.
        momentum: Share of the last step that is kept, from 0 up to but not including 1.
        name: Name of the optimizer.
        **kwargs: What `FusedOptimizer` takes.

    Reference:
        Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    moments = ("momentum",)

    def __init__(
        self, learning_rate: Any = 0.01, *, momentum: float = 0.9, name: str = "fused_sgd", **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def _update(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=moments[0].handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=True,
        )

    def _update_rows(self, gradient: Any, variable: Any, moments: list[Any], rate: Any) -> None:
        tf.raw_ops.ResourceSparseApplyKerasMomentum(
            var=variable.handle,
            accum=moments[0].handle,
            lr=rate,
            grad=gradient.values,
            indices=gradient.indices,
            momentum=self.momentum,
            use_nesterov=True,
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that build an equal optimizer."""
        return {**super().get_config(), "momentum": self.momentum}


def make_optimizer(
    settings: TrainSettings, schedule: WarmupDecay, *, rate_factors: Mapping[str, float]
) -> FusedOptimizer:
    """Makes a phase's optimizer.

    Args:
        settings: Which optimizer, decay and clipping.
        schedule: The course of its learning rate.
        rate_factors: Factor of the learning rate by variable path.

    Returns:
        A new optimizer.
    """
    kinds = {"adamw": FusedAdamW, "sgd": FusedSGD}
    return kinds[settings.optimizer](
        schedule,
        weight_decay=settings.weight_decay,
        total_steps=schedule.total_steps,
        clip_norm=settings.clip_norm,
        rate_factors=rate_factors,
    )


def layer_rate_factors(model: Any, layer_decay: float) -> dict[str, float]:
    """Gives lower layers lower learning rates.

    Args:
        model: A classifier with ``blocks``, from bottom to top, and a ``backbone``.
        layer_decay: Factor from each block to the one below, more than 0 up to 1.

    Returns:
        Factors by variable path; empty when ``layer_decay`` is 1.

    Reference:
        Clark et al. 2020, ELECTRA, arXiv:2003.10555 (layer-wise learning-rate decay).
    """
    if layer_decay == 1.0:
        return {}
    depth = len(model.blocks)
    factors = {v.path: layer_decay ** (depth + 1) for v in model.backbone.trainable_variables}
    for number, block in enumerate(model.blocks):
        variables = [v for layer in block.layers for v in layer.trainable_variables]
        factors |= {v.path: layer_decay ** (depth - number) for v in variables}
    return factors
