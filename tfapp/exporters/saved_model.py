"""SavedModel for TensorFlow Serving: strings, tensors or tf.Examples in, class names out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfapp.exporters._graph import InferenceGraph


def export_saved_model(model: Any, directory: str | Path) -> Path:
    """Writes a SavedModel with the preprocessor and the class names inside.

    Its endpoints are ``serve`` (also ``serving_default``), which takes raw features (texts, or encoded
    images), one that takes the model's own tensors (``serve_ids`` for texts, ``serve_pixels`` for images),
    and ``serve_examples``, which takes serialized ``tf.Example`` messages. Each answers with ``logits``,
    ``probabilities`` (the softmax of the logits divided by the temperature) and ``label``. Logits of a
    text's windows are averaged; the endpoint for tensors answers each window by itself. ``classify`` is for
    TF Serving's method of that name: examples as ``inputs``; ``classes``, all names in their order for each
    row, and their ``scores``, the probabilities.

    Args:
        model: A classifier that carries its preprocessor.
        directory: The folder that becomes the SavedModel; other files in it stay.

    Returns:
        The folder. It loads with nothing but tensorflow and tensorflow_text.
    """
    graph = InferenceGraph(model)
    preprocessor = graph.preprocessor
    feature = preprocessor.feature_name
    specs = graph.specs(batch=None, length=None, wire=True)
    logits = tf.function(graph.logits, input_signature=[specs], autograph=False)

    def serve_tensors(inputs: dict[str, tf.Tensor]) -> Any:
        return graph.outputs(logits(inputs))

    def serve(features: tf.Tensor) -> Any:
        inputs, owners = preprocessor.rows(features)
        rows = logits(graph.model.declared(inputs))
        return graph.outputs(rows if owners is None else tf.math.segment_mean(rows, owners))

    def serve_examples(examples: tf.Tensor) -> Any:
        return serve(tf.io.parse_example(examples, {feature: tf.io.FixedLenFeature([], tf.string)})[feature])

    def classify(inputs: tf.Tensor) -> Any:
        scores = serve_examples(inputs)["probabilities"]
        names = tf.constant([graph.classes], tf.string)
        return {"classes": tf.repeat(names, tf.shape(scores)[0], axis=0), "scores": scores}

    endpoints = {
        "serve": _function(serve, feature),
        preprocessor.tensor_endpoint: tf.function(serve_tensors, input_signature=[specs], autograph=False),
        "serve_examples": _function(serve_examples, "examples"),
        "classify": _function(classify, "inputs"),
    }
    graph.save(Path(directory), endpoints, default="serve")
    return Path(directory)


def _function(endpoint: Callable[[tf.Tensor], Any], name: str) -> Any:
    return tf.function(
        endpoint, input_signature=[tf.TensorSpec([None], tf.string, name=name)], autograph=False
    )
