"""How much memory a run will take, estimated before it begins."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfapp.machine import available_memory
from tfapp.training.microbatches import why_undivided
from tfapp.training.out_of_memory import rows_at_once
from tfapp.training.perturbing import Perturbing
from tfapp.training.run_state import Run
from tfapp.training.settings import Phase
from tfapp.training.trainer import TrainingModel

_LOG = logging.getLogger("tfapp")
_GB = 1e9
_ROUGHLY = 8
"""A bound that needs no graph counts each product of matrices so many times."""
_ALIASES = (
    "ExpandDims",
    "Identity",
    "IdentityN",
    "PreventGradient",
    "ReadVariableOp",
    "Reshape",
    "Squeeze",
    "StopGradient",
)
"""Operations whose first output is their first input."""
_IN_PLACE = ("Add", "AddN", "AddV2", "BiasAdd", "Mul", "Relu", "Relu6", "Sigmoid", "Softmax", "Sub", "Tanh")
"""Operations that write over an input which nothing else needs."""


def warn_of_memory(
    run: Run, phase: Phase, *, forward: Any, perturbing: Perturbing, states: Any = None
) -> None:
    """Says so, with the cure, where a phase will probably need more memory than there is.

    It is for processors, where the system ends a process that lacks memory. On accelerators, where such a
    step fails and the run goes on with smaller parts, and under a strategy nothing is said. What is computed
    below the trained part of a model, in inference mode, is not counted.

    Args:
        run: The run.
        phase: The phase.
        forward: Its faster forward pass, or None.
        perturbing: How its batches are perturbed.
        states: Its pass that gives hidden states, or None.
    """
    available = available_memory()
    accelerated = any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
    if available is None or accelerated or tf.distribute.has_strategy():
        return
    trainer = _trainer(run, phase, forward, perturbing, states)
    rows, length = (
        rows_at_once(run, run.num_microbatches),
        int(np.max(run.encoded["train"].lengths, initial=1)),
    )
    kept = _kept_bytes(run, trainer)
    if kept + _bound(trainer.network, rows, length) <= available:
        return
    needed = kept + step_bytes(trainer, rows=rows, length=length)
    if needed <= available:
        return
    divided = why_undivided(run.objective, run.model) is None
    cures = [f"lower batch_size (now {run.settings.batch_size})"]
    if divided:
        cures.append(f"raise num_microbatches (now {run.num_microbatches})")
    if "token_ids" in run.model.input:
        cures.append(f"lower max_length (now {run.model.preprocessor.max_length})")
    else:
        cures.append("build the model for smaller images")
    _LOG.warning(
        "'%s' may need about %.1f GB of memory more, and %.1f GB are available: %s.",
        phase.title,
        needed / _GB,
        available / _GB,
        ", or ".join(cures),
    )


def _trainer(run: Run, phase: Phase, forward: Any, perturbing: Perturbing, states: Any) -> TrainingModel:
    """A trainer of the phase, whose optimizer has no variables of its own."""
    beside = None if run.source is None else run.source.head
    trainer = TrainingModel(
        run.model.split(phase.train, beside=beside)[1],
        objective=run.objective,
        forward=forward,
        answers=None if beside is None else run.model.split(phase.train)[1],
        perturbing=perturbing,
        num_microbatches=run.num_microbatches,
        states=states,
    )
    trainer.compile(optimizer=keras.optimizers.SGD(), loss=run.loss, jit_compile=False)
    return trainer


def _kept_bytes(run: Run, trainer: TrainingModel) -> int:
    """Bytes of what a phase keeps from step to step beside the weights that are there already."""
    whole = sum(_variable_bytes(variable) for variable in run.weights)
    moments = {"adamw": 2, "sgd": 1}[run.settings.optimizer]
    slots = moments * sum(_variable_bytes(variable) for variable in trainer.trainable_variables)
    # To go back to, the best epoch's, and a checkpoint that is being written.
    return slots + whole * (2 if run.settings.keep_best else 1) + run.keep * (whole + slots)


def _variable_bytes(variable: Any) -> int:
    return int(np.prod(variable.shape)) * int(tf.as_dtype(variable.dtype).size)


def _bound(network: keras.Model, rows: int, length: int) -> int:
    """More bytes than a step takes, known without its graph: as if no layer made its input any smaller."""
    positions = max(
        (
            int(np.prod([length if size is None else size for size in tensor.shape[1:3]]))
            for tensor in network.inputs
        ),
        default=1,
    )
    widths = sum(int(v.shape[-1]) + length * (len(v.shape) > 2) for v in network.weights if len(v.shape) > 1)
    weights = sum(_variable_bytes(variable) for variable in network.weights)
    return _ROUGHLY * 4 * rows * positions * widths + 4 * weights


def step_bytes(trainer: TrainingModel, *, rows: int, length: int) -> int:
    """Estimates the most memory that a step holds at once, from the shapes in its graph.

    Args:
        trainer: The model in training, compiled.
        rows: Rows that are computed at once.
        length: Tokens of the longest.

    Returns:
        Bytes of the batches, of what the forward pass keeps for the backward one, and of the gradients.
    """

    def spec(name: str, tensor: Any) -> tf.TensorSpec:
        shape = [rows, *(length if size is None else size for size in tensor.shape[1:])]
        return tf.TensorSpec(shape, tensor.dtype, name)

    inputs = {name: spec(name, tensor) for name, tensor in trainer.network.input.items()}
    variants = int(getattr(trainer.objective, "variants", 0))
    if variants:
        inputs["variants"] = {
            name: tf.TensorSpec([rows, variants, *each.shape[1:]], each.dtype)
            for name, each in inputs.items()
        }

    extra_inputs = getattr(trainer.objective, "extra_inputs", None)
    if extra_inputs is not None:
        inputs |= extra_inputs(rows, length)

    def step(inputs: Any, labels: Any) -> Any:
        gradients = trainer.objective.step(trainer, inputs, labels, None).gradients
        return [tf.identity(gradient) for gradient in gradients if gradient is not None]

    traced = tf.function(step, autograph=False)
    graph = traced.get_concrete_function(inputs, tf.TensorSpec([rows], tf.int32, "labels")).graph
    gradients = sum(_variable_bytes(variable) for variable in trainer.trainable_variables)
    parts = trainer.num_microbatches
    # Clipped gradients and, in parts, their sums; the whole batch, and the next one that waits.
    beside = gradients * (1 if parts == 1 else 2) + 2 * parts * sum(
        map(_tensor_bytes, tf.nest.flatten(inputs))
    )
    return graph_bytes(graph) + beside


def graph_bytes(graph: Any) -> int:
    """The most bytes that a graph's tensors take at once when its operations run in the order they were made.

    Args:
        graph: A `tf.Graph`, or a function's; tensors whose shape is not known count as nothing.

    Returns:
        Bytes, constants and variables not counted.
    """
    operations = _needed(graph)
    source: dict[str, str] = {}
    last: dict[str, int] = {}
    for place, operation in enumerate(operations):
        for tensor in operation.inputs:
            last[source.get(tensor.name, tensor.name)] = place
        for tensor in operation.outputs:
            alias = operation.type in _ALIASES and operation.inputs
            source[tensor.name] = (
                source.get(operation.inputs[0].name, operation.inputs[0].name) if alias else tensor.name
            )
    for tensor in getattr(graph, "outputs", ()):
        last[source.get(tensor.name, tensor.name)] = len(operations)
    alive: dict[str, int] = {}
    now = most = 0
    for place, operation in enumerate(operations):
        ended = [
            name for name in {source.get(t.name, t.name) for t in operation.inputs} if last[name] == place
        ]
        reused = max((alive.get(name, 0) for name in ended), default=0) if operation.type in _IN_PLACE else 0
        made = {
            tensor.name: _tensor_bytes(tensor)
            for tensor in operation.outputs
            if source[tensor.name] == tensor.name and operation.type != "Const"
        }
        now += sum(made.values())
        most = max(most, now - min(reused, sum(made.values())) + _inner_bytes(graph, operation))
        alive |= made
        for name in (*ended, *(name for name in made if name not in last)):
            now -= alive.pop(name, 0)
    return most


def _needed(graph: Any) -> list[tf.Operation]:
    """The operations that are run: what outputs need, and what has effects."""
    stack = [tensor.op for tensor in getattr(graph, "outputs", ())]
    stack += list(getattr(graph, "control_outputs", ()))
    seen: set[str] = set()
    while stack:
        operation = stack.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            stack += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return [operation for operation in graph.get_operations() if operation.name in seen]


def _inner_bytes(graph: Any, operation: tf.Operation) -> int:
    """What the functions that an operation calls take beside its inputs and outputs."""
    names = [
        value.func.name
        for value in (operation.node_def.attr[key] for key in ("f", "body", "then_branch", "else_branch"))
        if value.HasField("func")
    ]
    return max((_function_bytes(graph, name) for name in names), default=0)


def _function_bytes(graph: Any, name: str) -> int:
    known = graph._get_function(name) if graph._is_function(name) else None
    inner = getattr(known, "graph", None)
    return graph_bytes(inner) if inner is not None else 0


def _tensor_bytes(tensor: Any) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or not tensor.shape.is_fully_defined():
        return 0
    return int(tensor.shape.num_elements()) * int(tensor.dtype.size)
