"""ONNX file for ONNX Runtime and other readers of the format, with the extra ``onnx``."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfapp.errors import ConfigError, WeightsError
from tfapp.exporters._graph import InferenceGraph
from tfapp.exporters._metadata import LABELS, label_file

OPSET = 18
_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
_ENVIRONMENT = "TF_CPP_MIN_LOG_LEVEL"
# The converter copies its graph about a hundred times, with the weights that it sees.
_HIDDEN_ELEMENTS = 1 << 16
# What protobuf can hold is 2 GiB; the graph itself takes a few megabytes of it.
_MOST_BYTES = (1 << 31) - (1 << 25)


def onnx_obstacle() -> str | None:
    """Tells why no ONNX file can be made here.

    Returns:
        The packages of the extra ``onnx`` that are missing, and how to add them; None when all are there.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f'it needs {", ".join(missing)}, not installed here: run `pip install "tfapp[onnx]"`'


def export_onnx(model: Any, directory: str | Path) -> Path:
    """Writes ``onnx/model.onnx``: the model's own tensors in, ``probabilities`` out, temperature included.

    Inputs have the names and types of the model's: int32 ``(batch, length)`` for texts, with a length up to
    the tokenizer's ``max_length``, and float32 ``(batch, height, width, 3)`` from 0 to 255 for images. The
    output is float32 ``(batch, num_classes)``. ``batch`` and ``length`` are open. The metadata holds
    ``labels.txt``, the preprocessor's ``vocab.txt`` or, in base 64, ``sentencepiece.model``, and its settings
    as JSON, under ``preprocessor``.

    Args:
        model: A classifier that carries its preprocessor.
        directory: The release's folder.

    Returns:
        The file, of opset 18 and without operators of other domains: ONNX Runtime reads it from 1.14 on.

    Raises:
        ConfigError: When a package of the extra ``onnx`` is missing.
        WeightsError: When the model needs operators that ONNX does not have, or its weights take 2 GiB.
    """
    obstacle = onnx_obstacle()
    if obstacle:
        raise ConfigError(f"no ONNX file can be made: {obstacle}.")
    graph = InferenceGraph(model)
    size = sum(math.prod(variable.shape) * 4 for variable in graph.model.variables)
    if size > _MOST_BYTES:
        raise WeightsError(
            f"the weights take {size / 1e9:.2f} GB, and an ONNX file holds 2.1 GB at most: leave the variant "
            "out."
        )
    path = Path(directory) / "onnx" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    _fold_constants(_converted(graph), path)
    _describe(graph, path)
    return path


def _converted(graph: InferenceGraph) -> bytes:
    """Converts the graph with its large weights as inputs, and puts these into the file afterwards."""
    specs = graph.specs(batch=None, length=None)
    large = [each for each in graph.model.variables if math.prod(each.shape) >= _HIDDEN_ELEMENTS]
    hidden = [
        tf.TensorSpec(each.shape, each.dtype, name=f"weight_{number}") for number, each in enumerate(large)
    ]
    signature = [*specs.values(), *hidden]

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        with keras.StatelessScope(state_mapping=list(zip(large, tensors[len(specs) :], strict=True))):
            return {"probabilities": graph.probabilities(dict(zip(specs, tensors, strict=False)))}

    function = tf.function(serve, input_signature=signature, autograph=False)
    with _tf2onnx() as converter:
        from onnx import numpy_helper

        proto, _ = converter.from_function(function, input_signature=signature, opset=OPSET)
        weights = dict(zip((spec.name for spec in hidden), large, strict=True))
        taken = {given.name for given in proto.graph.input}
        own = [given for given in proto.graph.input if given.name not in weights]
        del proto.graph.input[:]
        proto.graph.input.extend(own)
        proto.graph.initializer.extend(
            numpy_helper.from_array(variable.value.numpy(), name)
            for name, variable in weights.items()
            if name in taken
        )
        _check_operators(proto)
        return bytes(proto.SerializeToString())


@contextlib.contextmanager
def _tf2onnx() -> Iterator[Any]:
    """Gives the converter, and takes back what it sets for the whole process and its children."""
    before = os.environ.get(_ENVIRONMENT)
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what it cannot convert, `_check_operators` says
    try:
        import tf2onnx.convert

        yield tf2onnx.convert
    finally:
        logger.setLevel(level)
        if before is None:
            os.environ.pop(_ENVIRONMENT, None)
        else:
            os.environ[_ENVIRONMENT] = before


def _check_operators(proto: Any) -> None:
    """Refuses a model with operators of TensorFlow that have no counterpart."""
    import onnx

    foreign = {node.op_type for node in proto.graph.node if not onnx.defs.has(node.op_type, node.domain)}
    if foreign:
        raise WeightsError(
            f"the model needs {', '.join(sorted(foreign))}, which ONNX does not have. Replace those layers "
            "of the model, or leave the variant out."
        )


def _fold_constants(content: bytes, path: Path) -> None:
    """Lets ONNX Runtime compute once what depends on weights alone, such as batch normalisation in kernels.

    These rewrites are the ones that it calls basic: they use the format's own operators only and do not
    depend on the machine.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _describe(graph: InferenceGraph, path: Path) -> None:
    """Names the open sizes, adds the metadata, and drops the domains that no operator is of."""
    import onnx

    proto = onnx.load(path)
    for tensor in (*proto.graph.input, *proto.graph.output):
        for position, size in enumerate(tensor.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_param = "length" if position else "batch"
    used = {node.domain for node in proto.graph.node}
    domains = [each for each in proto.opset_import if each.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(domains)
    preprocessor = graph.preprocessor
    files = {LABELS: label_file(graph.classes), **preprocessor.asset_files()}
    metadata = {
        **{name: _as_text(name, content) for name, content in files.items()},
        "preprocessor": json.dumps(preprocessor.settings(), ensure_ascii=False),
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def _as_text(name: str, content: bytes) -> str:
    """Metadata are strings: what is no text goes in base 64."""
    return content.decode("utf-8") if name.endswith(".txt") else base64.b64encode(content).decode("ascii")
