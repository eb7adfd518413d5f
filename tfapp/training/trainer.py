"""The one train step, under Keras's own `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfapp.objectives import Objective, Perturbable
from tfapp.training.microbatches import step_in_parts
from tfapp.training.perturbing import Perturbing
from tfapp.training.requests import Requests
from tfapp.training.step_meter import StepMeter

_NEVER = -1


class TrainingModel(keras.Model):  # type: ignore[misc]
    """Trains a network with an objective; the network itself stays as it is, ready to be saved.

    Args:
        network: The model whose variables are trained, from inputs to logits ``(batch, num_classes)``.
        objective: What a step minimises.
        frozen: A model or a function computed in inference mode before ``network``, or None.
        forward: A faster function ``(inputs, training) -> logits`` over the network's own variables, or None
            to call the network.
        whole: The model that callbacks save and load when they save this one; the network when None.
        answers: Computes logits in inference mode, where ``network`` also has those of another task; the
            network when None.
        total_steps: Steps of the phase.
        perturbing: How batches are perturbed, for objectives that do.
        seed: Decides what objectives draw, 0 or more and less than 2^62; each phase should have its own.
        num_microbatches: In how many parts each replica computes its rows of a batch, see `step_in_parts`.
        states: A pass that also gives hidden states, see `hidden_pass`, for objectives that compare them.

    Attributes:
        in_step: Whether batches are being learned, and not evaluated.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        objective: Objective,
        frozen: Callable[..., Any] | None = None,
        forward: Callable[..., tf.Tensor] | None = None,
        whole: keras.Model | None = None,
        answers: keras.Model | None = None,
        total_steps: int = 1,
        perturbing: Perturbing | None = None,
        seed: int = 0,
        num_microbatches: int = 1,
        states: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(name="training")
        self.network = network
        self.frozen = frozen
        self.objective = objective
        self.forward = forward
        self.whole = network if whole is None else whole
        self.answers = network if answers is None else answers
        self.total_steps = total_steps
        self.perturbing = perturbing or Perturbing()
        self.seed = seed
        self.requests = Requests(self.distribute_strategy)
        self.num_microbatches = num_microbatches
        self.states = states
        self.in_step = True
        self._part: tf.Tensor | None = None
        self._statistics = moving_averages(network)
        self.meter = StepMeter()
        # On several replicas each has its own, and they agree.
        self._not_finite = tf.Variable(
            _NEVER,
            dtype=tf.int64,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Computes logits.

        Args:
            inputs: What ``frozen`` takes, or ``network`` where nothing is frozen.
            training: Whether dropout is on.

        Returns:
            float32 ``(batch, num_classes)``.
        """
        if self.frozen is not None:
            inputs = self.frozen(inputs, training=False)
        # In inference mode Keras's own pass serves: it needs no kernel compiled for every width.
        if self.forward is not None and training:
            return self.forward(inputs, training=training)
        return (self.network if training else self.answers)(inputs, training=training)

    @property
    def num_classes(self) -> int:
        """Number of the classes that the model answers in inference mode."""
        return int(self.answers.output.shape[-1])

    @property
    def progress(self) -> tf.Tensor:
        """Share of the phase's steps that are done, a float32 scalar from 0 up to 1."""
        return tf.cast(self.optimizer.iterations, tf.float32) / self.total_steps

    @property
    def first_not_finite(self) -> int | None:
        """The optimizer's step count before the first step whose loss was not finite, or None."""
        step = int(self._not_finite.read_value().numpy())
        return None if step == _NEVER else step

    @property
    def trainable_variables(self) -> list[Any]:
        """The network's trainable variables."""
        return list(self.network.trainable_variables)

    @property
    def trainable_weights(self) -> list[Any]:
        """The same, under the name that Keras uses inside."""
        return list(self.network.trainable_variables)

    def save(self, *arguments: Any, **options: Any) -> None:
        """Saves the whole model, as `keras.Model.save` does."""
        self.whole.save(*arguments, **options)

    def save_weights(self, *arguments: Any, **options: Any) -> None:
        """Saves the whole model's weights, as `keras.Model.save_weights` does."""
        self.whole.save_weights(*arguments, **options)

    def load_weights(self, *arguments: Any, **options: Any) -> None:
        """Loads the whole model's weights, as `keras.Model.load_weights` does."""
        self.whole.load_weights(*arguments, **options)

    def _pass(self, inputs: Any, training: bool) -> tf.Tensor:
        """Computes logits from what enters the trained part."""
        if self.forward is not None:
            return tf.cast(self.forward(inputs, training=training), tf.float32)
        return tf.cast(self.network(inputs, training=training), tf.float32)

    def hidden_states(self, inputs: Any, *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Computes logits and hidden states by the pass that was given for it.

        Args:
            inputs: What ``network`` takes.
            training: Whether dropout is on.

        Returns:
            float32 ``(batch, num_classes)``; and what enters the first block and what each block gives,
            ``(batch, sequence, hidden)``.
        """
        assert self.states is not None
        logits, states = self.states(inputs, training=training)
        return tf.cast(logits, tf.float32), list(states)

    def infer(self, inputs: Any) -> tf.Tensor:
        """Computes logits in inference mode by the pass that training takes, which is the fastest.

        Args:
            inputs: As in `call`.

        Returns:
            float32 ``(batch, num_classes)``.
        """
        return self._pass(inputs if self.frozen is None else self.frozen(inputs, training=False), False)

    def perturbable(self, inputs: Any) -> Perturbable:
        """Finds where a batch is perturbed: in what enters the part of the model that is trained.

        Args:
            inputs: What ``frozen`` takes, or ``network`` where nothing is frozen.

        Returns:
            Pixels of images, embeddings of texts, or features of what is frozen.
        """
        if self.frozen is not None:
            inputs = self.frozen(inputs, training=False)
        return self.perturbing.entering(inputs, self._pass)

    @property
    def trains_statistics(self) -> bool:
        """Whether a pass in training mode changes moving averages of batch normalisation."""
        return bool(self._statistics)

    def keeping_statistics(self, compute: Callable[[], Any]) -> Any:
        """Computes without changing the moving averages of batch normalisation.

        Args:
            compute: A pass in training mode.

        Returns:
            What it returns.
        """
        before = [tf.identity(variable.value) for variable in self._statistics]
        with tf.control_dependencies(before):
            computed = compute()
        with tf.control_dependencies(tf.nest.flatten(computed, expand_composites=True)):
            for variable, value in zip(self._statistics, before, strict=True):
                variable.assign(value)
        return computed

    def step_seed(self) -> tf.Tensor:
        """Derives a seed for each step, replica and part of a batch, int32 ``(2,)``."""
        fold = tf.random.experimental.stateless_fold_in
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        of_phase = tf.constant([self.seed % 2**31, self.seed // 2**31], tf.int32)
        of_replica = fold(of_phase, tf.cast(replica, tf.int32))
        of_step = fold(of_replica, tf.cast(self.optimizer.iterations, tf.int32))
        return of_step if self._part is None else fold(of_step, self._part)

    @contextmanager
    def part(self, number: tf.Tensor) -> Iterator[None]:
        """Says which part of a batch is computed, so that no two of them draw alike.

        Args:
            number: Number of the part, an int32 scalar from 0.
        """
        self._part = number
        try:
            yield
        finally:
            self._part = None

    def scaled_mean(self, values: Any, sample_weight: Any) -> tf.Tensor:
        """Averages over the batch, weighted, and divided by the number of replicas like the loss.

        Args:
            values: float32 ``(batch,)``.
            sample_weight: float32 ``(batch,)`` or None.

        Returns:
            A scalar.
        """
        weighted = values if sample_weight is None else values * tf.cast(sample_weight, values.dtype)
        replicas = self.distribute_strategy.num_replicas_in_sync
        return tf.reduce_mean(weighted) / tf.cast(replicas, values.dtype)

    def apply_gradients(self, gradients: list[Any]) -> None:
        """Takes a step of the optimizer."""
        self.optimizer.apply(gradients, self.trainable_variables)

    def supervised_loss(
        self, inputs: Any, labels: Any, logits: Any, sample_weight: Any, *, regularised: bool = True
    ) -> tf.Tensor:
        """Computes the loss to differentiate, divided by the number of replicas.

        Args:
            inputs: The batch's inputs.
            labels: Class indices, int32 ``(batch,)``, or distributions, float32 ``(batch, num_classes)``.
            logits: float32 ``(batch, num_classes)``.
            sample_weight: float32 ``(batch,)`` or None.
            regularised: Whether the network's own losses are added: those of its regularisers and layers.

        Returns:
            A scalar.
        """
        if not regularised:
            return self._compile_loss(labels, logits, sample_weight)
        return self._compute_loss(
            x=inputs, y=labels, y_pred=logits, sample_weight=sample_weight, training=True
        )

    def unscaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Takes the division by the number of replicas out of a loss again."""
        return loss * tf.cast(self.distribute_strategy.num_replicas_in_sync, loss.dtype)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds the metrics for the first batch, as Keras does.

        Keras averages the batches of all replicas for it, which fails where these have different sizes.
        """
        if self._distribute_strategy is None:
            return
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            local = self.distribute_strategy.experimental_local_results
            data_batch = keras.tree.map_structure(lambda values: local(values)[0], next(batches))
        known = getattr(self.answers, "input", None)
        if self.frozen is None and isinstance(known, dict):
            # What stands beside the inputs for the objective is nothing that the network takes.
            inputs, *rest = data_batch
            data_batch = ({name: inputs[name] for name in known}, *rest)
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes one step on one batch, as Keras's `fit` asks for it."""
        # A batch may be attacked while it is made: nothing, weight decay for one, may change weights before.
        with tf.control_dependencies(tf.nest.flatten(data)):
            arrived = self.meter.arrived(*data[:2])
        with tf.control_dependencies([*tf.nest.flatten(data), arrived]):
            results = self._step(data)
            self.meter.ended(results["loss"], self.trainable_variables)
            return results

    def _step(self, data: Any) -> dict[str, Any]:
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        number = tf.identity(tf.cast(self.optimizer.iterations, tf.int64))
        rows = tf.cast(tf.shape(labels)[0], tf.float32)
        each = rows
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            # A replica's loss is a mean over its own rows, and all replicas count the same: where one has
            # fewer rows than another, they weigh less, so that the sum is the mean over the whole batch.
            each = self.requests.summed_with(rows) / context.num_replicas_in_sync
            weights = tf.fill([tf.shape(labels)[0]], rows / each)
            sample_weight = weights if sample_weight is None else weights * tf.cast(sample_weight, tf.float32)
        if self.num_microbatches > 1:
            batch, count = (inputs, labels, sample_weight), self.num_microbatches
            result = step_in_parts(self, self.objective, *batch, count=count)
        else:
            result = self.objective.step(self, inputs, labels, sample_weight)
        loss = tf.where(rows > 0.0, result.loss, 0.0)  # of the last rows of an epoch a replica may have none
        self._note_whether_finite(loss, number)
        self._loss_tracker.update_state(loss, sample_weight=each)
        self.apply_gradients(result.gradients)
        answered = labels if result.labels is None else result.labels
        return dict(self.compute_metrics(inputs, answered, result.logits))

    def _note_whether_finite(self, loss: tf.Tensor, number: tf.Tensor) -> None:
        bad = tf.cast(~tf.math.is_finite(loss), tf.int32)
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            bad = context.all_reduce(tf.distribute.ReduceOp.SUM, bad)
        first = (bad > 0) & (self._not_finite == _NEVER)
        self._not_finite.assign(tf.where(first, number, self._not_finite))


def moving_averages(network: keras.Model) -> list[Any]:
    """Lists the moving averages that a pass in training mode changes.

    Args:
        network: The model.

    Returns:
        Means and variances of the batch normalisations that are trained, and what renormalisation keeps.
    """
    return [
        variable
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in layer.non_trainable_weights
    ]
