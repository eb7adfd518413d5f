"""Compiling what an attack does with a model, once for all batches and calls."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import tensorflow as tf

from tfapp.attacks._checks import ModelFn, check_classes


class CompiledModel:
    """A model whose attacks are traced once, however many batches and calls they take.

    Give it to attacks instead of the function itself where they are called eagerly again and again: without
    it PGD and the attacks of `standard` trace anew at each call. Variables that the function reads are read
    at every call, so weights may change; whatever else it reads in Python stays as it was at its first call.

    Args:
        model_fn: Inputs to logits ``(batch, num_classes)``, in inference mode.

    Attributes:
        num_classes: The width of its logits; None before the first trace, and where it is not known.
    """

    def __init__(self, model_fn: ModelFn) -> None:
        self.model_fn = model_fn
        self.num_classes: int | None = None
        self._functions: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Logits of a batch."""
        if not tf.executing_eagerly():
            return self._traced(inputs)
        return self.run("logits", lambda model_fn, given: model_fn(given), tf.convert_to_tensor(inputs))

    def run(
        self,
        key: Hashable,
        program: Callable[..., Any],
        *arguments: Any,
        labels: tf.Tensor | None = None,
    ) -> Any:
        """Runs a program, compiled at the first call with its key and with its arguments' types.

        Args:
            key: Names the program with all that shapes it; programs with equal keys must be the same.
            program: Takes the model and the arguments.
            *arguments: Tensors, or nested structures of them. Batches may have any number of rows.
            labels: What `as_labels` answers, to be checked against the model's classes before the program
                runs; tracing it tells how many they are. None where labels are no classes.

        Raises:
            DataError: When a label is outside the model's classes.
        """
        arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        signature = tf.nest.map_structure(_any_batch, arguments)
        place = (key, tuple(tf.nest.flatten(signature)))
        if place not in self._functions:
            traced = tf.function(
                lambda *given: program(self._traced, *given), input_signature=signature, autograph=False
            )
            self._functions[place] = traced.get_concrete_function()
        if labels is not None:
            check_classes(labels, self.num_classes)
        return self._functions[place](*arguments)

    def _traced(self, inputs: tf.Tensor) -> tf.Tensor:
        logits = tf.convert_to_tensor(self.model_fn(inputs))
        if logits.shape.rank == 2:
            self.num_classes = logits.shape[1]
        return logits


def run_compiled(
    key: Hashable,
    program: Callable[..., Any],
    model_fn: ModelFn,
    *arguments: Any,
    labels: tf.Tensor | None = None,
) -> Any:
    """Runs a program of an attack: as it is inside a `tf.function`, otherwise compiled.

    Args:
        key: As for `CompiledModel.run`.
        program: As for `CompiledModel.run`.
        model_fn: The model, compiled or not.
        *arguments: As for `CompiledModel.run`.
        labels: As for `CompiledModel.run`; not checked inside a `tf.function`, where they are not known.

    Raises:
        DataError: When a label is outside the model's classes.
    """
    if not tf.executing_eagerly():
        return program(model_fn, *arguments)
    return as_compiled(model_fn).run(key, program, *arguments, labels=labels)


def repeat(function: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor, times: int) -> tf.Tensor:
    """Applies a function to its own answer; inside a graph as a loop, which compiles once and not ``times``.

    Args:
        function: Keeps shape and type.
        values: What it is first applied to.
        times: How often, at least once.
    """
    if times == 1:
        return function(values)
    _, answer = tf.while_loop(
        lambda done, _: done < times,
        lambda done, values: (done + 1, function(values)),
        (tf.constant(0), values),
        maximum_iterations=times,
    )
    return answer


def as_compiled(model_fn: ModelFn) -> CompiledModel:
    """Wraps a model, unless it is compiled already."""
    return model_fn if isinstance(model_fn, CompiledModel) else CompiledModel(model_fn)


def _any_batch(tensor: tf.Tensor) -> tf.TensorSpec:
    shape = tensor.shape.as_list()
    return tf.TensorSpec([None, *shape[1:]] if shape else shape, tensor.dtype)
