"""The graph in which requests are joined: TensorFlow's batching operator before a signature's function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from tfapp.serving.server.settings import Batching

CHUNK = 4
"""Texts computed at once: more of them need more padding, fewer leave the cores less to do."""

_CALLS = ("StatefulPartitionedCall", "PartitionedCall")


def call_of(fetches: Sequence[Any], feeds: Sequence[str]) -> Any:
    """Finds the operator that calls a signature's function.

    Args:
        fetches: The signature's output tensors.
        feeds: Names of its input tensors.

    Returns:
        The operator, whose first inputs are the feeds and whose others are variables; None where the
        signature is made otherwise, and rows of different requests cannot be joined.
    """
    call = fetches[0].op
    firsts = [tensor.name for tensor in call.inputs][: len(feeds)]
    whole = all(tensor.op is call for tensor in fetches) and sorted(firsts) == sorted(feeds)
    return call if whole and call.type in _CALLS else None


def work_of(call: Any, definition: Any, functions: Mapping[str, Any]) -> Hashable:
    """Identifies what a signature computes, as releases have one function under two names.

    Args:
        call: What `call_of` found.
        definition: The ``SignatureDef``.
        functions: The graph's functions by name.

    Returns:
        The same for signatures whose inputs and outputs have the same names and meaning.
    """
    function = functions[call.get_attr("f").name]
    calls = [node for node in function.node_def if node.op not in ("Identity", "NoOp")]
    if len(calls) != 1 or calls[0].op not in _CALLS:
        return str(call.name)
    return (
        calls[0].attr["f"].func.name,
        tuple(calls[0].input),
        tuple(sorted(function.ret.items())),
        tuple(sorted((alias, info.name.partition(":")[2]) for alias, info in definition.outputs.items())),
        tuple(sorted(definition.inputs)),
        tuple(tensor.name for tensor in call.inputs[len(definition.inputs) :]),
    )


def joined(
    call: Any, fetches: Sequence[Any], batching: Batching, *, width: int, key: str, by_length: bool
) -> list[Any]:
    """Puts the batching operator before a signature's function.

    Args:
        call: What `call_of` found.
        fetches: The signature's output tensors.
        batching: How requests are joined.
        width: How many inputs the signature has.
        key: A name that no other queue of the process has.
        by_length: Whether the rows are strings, of which those of similar length are computed together:
            padding a short text to a long one is wasted work.

    Returns:
        The output tensors of joined requests, fed as the signature is.
    """
    feeds, variables = list(call.inputs)[:width], list(call.inputs)[width:]
    function = attr_value_pb2.NameAttrList(name=call.get_attr("f").name)

    # The batching operator does not optimise the function it calls. What is not inlined into it is called by
    # an operator that does, which is worth a third of the time.
    def call_function(*inputs: Any) -> Any:
        return tf.raw_ops.StatefulPartitionedCall(
            args=list(inputs), Tout=[tensor.dtype for tensor in call.outputs], f=function
        )

    compute = tf.function(call_function, autograph=False, experimental_attributes={"_noinline": True})

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in feeds]
    with call.graph.as_default():
        if by_length:
            whole = _in_chunks(compute, call, feeds, variables)
        else:
            whole = _function(lambda *rows: compute(*rows, *variables))
        concrete = whole.get_concrete_function(*specs)
        outputs = tf.raw_ops.BatchFunction(
            in_tensors=feeds,
            captured_tensors=concrete.captured_inputs,
            f=concrete,
            num_batch_threads=batching.num_batch_threads,
            max_batch_size=batching.max_batch_size,
            batch_timeout_micros=batching.batch_timeout_micros,
            max_enqueued_batches=batching.max_enqueued_batches,
            Tout=[tensor.dtype for tensor in call.outputs],
            shared_name=key,
            batching_queue=key,
        )
    return [outputs[tensor.value_index] for tensor in fetches]


def _in_chunks(compute: Any, call: Any, feeds: Sequence[Any], variables: Sequence[Any]) -> Any:
    """Orders a batch of strings by length and computes a few neighbours at a time."""
    outputs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in call.outputs]
    row = tf.TensorSpec([], tf.int32)
    state = [row, row, tf.TensorSpec([None], tf.int32), tf.TensorSpec(feeds[0].shape, tf.string), *outputs]
    state += [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]
    first, last = 4, 4 + len(outputs)

    def more(place: Any, count: Any, *others: Any) -> Any:
        return place < count

    def step(place: Any, count: Any, order: Any, texts: Any, *rest: Any) -> Any:
        done, held = rest[: len(outputs)], rest[len(outputs) :]
        new = compute(tf.gather(texts, order[place : place + CHUNK]), *held)
        grown = [tf.concat(pair, axis=0) for pair in zip(done, new, strict=True)]
        return [place + CHUNK, count, order, texts, *grown, *held]

    def whole(texts: Any) -> Any:
        order = tf.argsort(tf.strings.length(texts))
        empty = [
            tf.fill([0, *output.shape[1:]], tf.constant("" if output.dtype == tf.string else 0, output.dtype))
            for output in outputs
        ]
        # tf.while_loop would be lowered into the function around it, and `compute` would be inlined.
        ended = tf.raw_ops.While(
            input=[tf.constant(0), tf.size(texts), order, texts, *empty, *variables],
            cond=_function(more).get_concrete_function(*state),
            body=_function(step).get_concrete_function(*state),
            output_shapes=[spec.shape for spec in state],
            parallel_iterations=1,
        )
        back = tf.argsort(order)
        return [tf.gather(output, back) for output in ended[first:last]]

    return _function(whole)


def _function(call: Callable[..., Any]) -> Any:
    return tf.function(call, autograph=False)
