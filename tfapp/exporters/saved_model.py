"""SavedModel for TensorFlow Serving: strings, tensors or tf.Examples in, class names out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tfapp.exporters._graph import InferenceGraph


def export_saved_model(model: Any, directory: str | Path) -> Path:
    """Writes a SavedModel with the preprocessor and the class names inside.

    Its endpoints are ``serve`` (also ``serving_default``), which takes raw features such as strings, one
    that takes the model's own tensors (``serve_ids`` for texts), and ``serve_examples``, which takes
    serialized ``tf.Example`` messages. Each answers with ``logits``, ``probabilities`` (the softmax of
    the logits divided by the temperature) and ``label``.

    Args:
        model: A classifier that carries its preprocessor.
        directory: The folder that becomes the SavedModel; other files in it stay.

    Returns:
        The folder. It loads with nothing but tensorflow and tensorflow_text.
    """
    graph = InferenceGraph(model)
    preprocessor = graph.preprocessor
    feature = preprocessor.feature_name
    specs = graph.specs(batch=None, length=None)
    answer = tf.function(graph.outputs, input_signature=[specs], autograph=False)

    def serve_features(features: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(preprocessor(features))  # type: ignore[no-any-return]

    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, {feature: tf.io.FixedLenFeature([], tf.string)})
        return serve_features(parsed[feature])

    archive = graph.archive()
    archive.add_endpoint("serve", serve_features, [tf.TensorSpec([None], tf.string, name=feature)])
    archive.add_endpoint(preprocessor.tensor_endpoint, answer.python_function, [specs])
    archive.add_endpoint(
        "serve_examples", serve_examples, [tf.TensorSpec([None], tf.string, name="examples")]
    )
    directory = Path(directory)
    archive.write_out(str(directory), verbose=False)
    return directory
