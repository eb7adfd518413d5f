"""A trainable Keras layer around a TF-Hub SavedModel whose graph tfapp has no Keras layers for."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfapp.errors import WeightsError


@keras.saving.register_keras_serializable("tfapp")
class HubLayer(keras.layers.Layer):  # type: ignore[misc]
    """Runs a reusable SavedModel and trains its variables, as ``hub.KerasLayer`` did before Keras 3.

    The graph computes in the precision that it was saved in, whatever the layer's dtype policy. A saved
    Keras file holds the weights but not the graph: loading it needs the SavedModel at the same path.

    Args:
        handle: Folder of the SavedModel.
        trainable: Whether its trainable variables are trained.
        pass_training: Whether the graph takes ``training``, and so has dropout of its own.
        **kwargs: What every Keras layer takes, such as ``name``.

    Raises:
        WeightsError: If the object cannot be called or holds no variables.
    """

    cannot_export: ClassVar[dict[str, str]] = {
        "keras": "a TF-Hub graph is not made of Keras layers, and the file would need the folder it is from",
        "text": "TFLite lacks operators for a TF-Hub graph on texts of any length",
    }
    """Artifacts that cannot be made of a model with this layer, and why not."""

    def __init__(
        self, handle: str, *, trainable: bool = True, pass_training: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(trainable=trainable, **kwargs)
        self.handle = handle
        self.pass_training = pass_training
        # Kept as an attribute: its variables live as long as it does, and its assets are exported with it.
        self._loaded = tf.saved_model.load(handle)
        variables = list(getattr(self._loaded, "variables", []))
        if not variables or not callable(self._loaded):
            raise WeightsError(
                f"{handle} is no reusable SavedModel: it cannot be called, or has no variables."
            )
        trained = {id(variable) for variable in getattr(self._loaded, "trainable_variables", [])}
        for variable in variables:
            self._track_variable(_wrap(variable, trainable=id(variable) in trained))
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes a batch.

        Args:
            inputs: int32 ``(batch, sequence)`` by TF-Hub's names: ``input_word_ids``, ``input_mask``,
                ``input_type_ids``.
            training: Whether the graph's dropout is on.

        Returns:
            ``sequence_output`` ``(batch, sequence, hidden)`` and ``pooled_output`` ``(batch, hidden)``.
        """
        outputs = (
            self._loaded(inputs, training=bool(training)) if self.pass_training else self._loaded(inputs)
        )
        return {name: outputs[name] for name in ("sequence_output", "pooled_output")}

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the layer without its weights."""
        return {**super().get_config(), "handle": self.handle, "pass_training": self.pass_training}


def _wrap(variable: tf.Variable, *, trainable: bool) -> keras.Variable:
    """Makes a Keras variable that is `variable`, not a copy of it."""
    wrapped = keras.Variable(
        initializer=variable,
        shape=variable.shape,
        dtype=variable.dtype,
        trainable=trainable,
        autocast=False,
        name=variable.name.split(":")[0].replace("/", "."),
    )
    if wrapped.value is not variable:
        raise WeightsError(
            f"Keras {keras.__version__} copies TensorFlow variables instead of wrapping them, so this graph "
            "would not be trained; install keras 3.15 or newer."
        )
    return wrapped


def make_hub_backbone(handle: str, *, pass_training: bool) -> keras.Model:
    """Makes a functional encoder with tfapp's inputs around a TF-Hub BERT graph.

    Args:
        handle: Folder of the SavedModel.
        pass_training: Whether the graph takes ``training``.

    Returns:
        A model from ``token_ids, padding_mask, segment_ids`` to ``sequence_output, pooled_output``.
    """
    names = {"token_ids": "input_word_ids", "padding_mask": "input_mask", "segment_ids": "input_type_ids"}
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    layer = HubLayer(handle, pass_training=pass_training, name="hub_encoder")
    outputs = layer({names[name]: tensor for name, tensor in inputs.items()})
    return keras.Model(inputs, outputs, name="hub_backbone")
