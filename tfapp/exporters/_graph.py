"""What every exported graph computes: logits, probabilities with temperature, and the class name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfapp.errors import ConfigError

_HALF_PRECISION = ("bfloat16", "float16")


def in_float32(model: Any) -> Any:
    """Returns the model, or a float32 copy of it when one of its layers computes in half precision.

    Args:
        model: A classifier with ``float32_copy()``.

    Returns:
        A classifier that computes in float32: converters take no other, and files must not depend on the
        precision that was fastest in training.
    """
    if any(layer.compute_dtype in _HALF_PRECISION for layer in model.layers):
        return model.float32_copy()
    return model


class InferenceGraph:
    """The computation of a classifier in inference mode, to be traced into exported files.

    Args:
        model: A classifier: a functional model with a dict of inputs that emits logits, with ``classes``,
            ``temperature``, ``preprocessor``, ``declared`` and ``single_logits``.

    Raises:
        ConfigError: When a class name holds a line break, which a file with one name a line cannot hold.
    """

    def __init__(self, model: Any) -> None:
        broken = [name for name in model.classes if name.splitlines() != [name]]
        if broken:
            raise ConfigError(
                f"class {broken[0]!r} is empty or holds a line break, and labels.txt has one name a line: "
                "rename the class."
            )
        self.model = in_float32(model)
        self.classes: tuple[str, ...] = tuple(model.classes)
        self.temperature = float(model.temperature)
        self.preprocessor = model.preprocessor

    def specs(self, batch: int | None, length: int | None, *, wire: bool = False) -> dict[str, tf.TensorSpec]:
        """Describes the model's input tensors.

        Args:
            batch: Rows, or None for any number.
            length: What an open dimension after the first becomes, or None to leave it open.
            wire: Whether the types are those that the preprocessor gives, such as 8 bits for pixels, and not
                those that the model computes with.

        Returns:
            A specification for each input, by its name.
        """
        types = self.preprocessor.tensor_dtypes if wire else {}
        return {
            name: tf.TensorSpec(
                [batch, *(length if size is None else size for size in tensor.shape[1:])],
                types.get(name, tensor.dtype),
                name=name,
            )
            for name, tensor in self.model.input.items()
        }

    def logits(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Computes the logits.

        Args:
            inputs: The model's input tensors by name, in any type that casts to the model's.

        Returns:
            float32 ``(batch, num_classes)``.
        """
        cast = {name: tf.cast(inputs[name], tensor.dtype) for name, tensor in self.model.input.items()}
        return tf.cast(self.model(cast, training=False), tf.float32)

    def probabilities(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Computes the probabilities at the model's temperature.

        Args:
            inputs: The model's input tensors by name.

        Returns:
            float32 ``(batch, num_classes)``, rows adding up to 1.
        """
        return tf.nn.softmax(self.logits(inputs) / self.temperature)

    def single_probabilities(self, raw: tf.Tensor) -> tf.Tensor:
        """Computes the probabilities of one raw input, in the way that the model has for single rows.

        Args:
            raw: What the preprocessor takes, ``(1,)``.

        Returns:
            float32 ``(1, num_classes)``.
        """
        return tf.nn.softmax(self.model.single_logits(raw) / self.temperature)

    def outputs(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """Makes of logits everything that a server answers.

        Args:
            logits: float32 ``(batch, num_classes)``.

        Returns:
            ``logits`` and ``probabilities`` float32 ``(batch, num_classes)``, ``label`` string ``(batch,)``.
        """
        label = tf.gather(tf.constant(self.classes, tf.string), tf.argmax(logits, axis=-1))
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits / self.temperature),
            "label": label,
        }

    def save(self, directory: Path, endpoints: Mapping[str, Any], *, default: str) -> None:
        """Writes a SavedModel.

        Keras's own export archive would write every weight twice.

        Args:
            directory: The folder; other files in it stay.
            endpoints: A `tf.function` with an input signature for each endpoint, by name.
            default: Name of the endpoint that is also ``serving_default``.
        """
        holder = tf.Module()
        holder.weights = [variable.value for variable in self.model.variables]
        holder.preprocessor = self.preprocessor
        for name, endpoint in endpoints.items():
            setattr(holder, name, endpoint)
        signatures = {**endpoints, "serving_default": endpoints[default]}
        tf.saved_model.save(holder, str(directory), signatures=signatures)
