"""Text encoders of any family: where their hidden states are, and how they are cut, pooled and copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import keras_hub
import numpy as np

from tfapp.errors import ConfigError, WeightsError
from tfapp.models.heads import check_pooling, first_token, mean_over_tokens

SCALING_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)
"""What brings raw pixels to a network's range; it computes in float32 in every precision."""
_EMBEDDINGS = (keras.layers.Embedding, keras_hub.layers.TokenAndPositionEmbedding)


def hidden_states(backbone: keras.Model) -> keras.KerasTensor:
    """Returns the symbolic output ``(batch, sequence, hidden)`` of a text encoder.

    Args:
        backbone: Functional encoder with a dict of inputs.

    Returns:
        The last hidden states, before any pooling.

    Raises:
        WeightsError: If the model is no text encoder in this form.
    """
    inputs, outputs = getattr(backbone, "input", None), getattr(backbone, "output", None)
    if not isinstance(inputs, dict) or not {"token_ids", "padding_mask"} <= set(inputs):
        raise WeightsError(
            f"the backbone {backbone.name!r} does not take a dict with token_ids and padding_mask; text "
            "encoders of keras-hub do (BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, DeBERTa and others)."
        )
    hidden = outputs.get("sequence_output") if isinstance(outputs, dict) else outputs
    if hidden is None or len(hidden.shape) != 3:
        raise WeightsError(
            f"the backbone {backbone.name!r} gives no output of shape (batch, sequence, hidden)."
        )
    return hidden


def encoder_blocks(backbone: keras.Model) -> list[tuple[keras.layers.Layer, keras.KerasTensor]]:
    """Returns the transformer blocks of a backbone, if they are a plain chain ending in its output.

    Args:
        backbone: Functional text encoder.

    Returns:
        The blocks from bottom to top, each with the hidden states ``(batch, sequence, hidden)`` it takes.
        Empty for encoders whose blocks share weights or pass more than hidden states and padding mask on.
    """
    layers = list(getattr(backbone, "transformer_layers", []))
    if not layers or not all(isinstance(layer, keras_hub.layers.TransformerEncoder) for layer in layers):
        return []
    # The first node of a layer is its call inside the backbone; later ones belong to models built on it.
    nodes = [layer._inbound_nodes[0] for layer in layers]
    takes = [node.arguments.args[0] for node in nodes]
    gives = [node.output_tensors[0] for node in nodes]
    if any(
        below is not above for below, above in zip(gives, [*takes[1:], hidden_states(backbone)], strict=True)
    ):
        return []
    return list(zip(layers, takes, strict=True))


def pool(
    backbone: keras.Model,
    pooling: str,
    *,
    hidden: keras.KerasTensor | None = None,
    padding_mask: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Pools hidden states into one vector for each text.

    Args:
        backbone: Functional text encoder.
        pooling: ``"mean"``, ``"cls"`` or ``"pooler"``.
        hidden: Hidden states ``(batch, sequence, hidden)``; those of the backbone when None.
        padding_mask: int32 ``(batch, sequence)``; the backbone's input when None.

    Returns:
        Features ``(batch, hidden)``.

    Raises:
        ConfigError: If the pooling is unknown, or the backbone has no pooler.
    """
    check_pooling(pooling)
    if hidden is None:
        hidden = hidden_states(backbone)
    if padding_mask is None:
        padding_mask = backbone.input["padding_mask"]
    if pooling == "mean":
        return mean_over_tokens(hidden, padding_mask)
    if pooling == "cls":
        return first_token(hidden)
    pooler = getattr(backbone, "pooled_dense", None)
    if pooler is not None:
        return pooler(first_token(hidden))
    outputs = backbone.output
    if isinstance(outputs, dict) and "pooled_output" in outputs and hidden is hidden_states(backbone):
        return outputs["pooled_output"]
    raise ConfigError(f"pooling = 'pooler': the backbone {backbone.name!r} has none; use 'mean' or 'cls'.")


def token_embeddings(model: keras.Model) -> keras.KerasTensor:
    """Finds the embeddings of the tokens in the graph of a text model.

    Args:
        model: Functional model with ``token_ids`` among its inputs.

    Returns:
        What the one embedding layer that reads the ids gives, ``(batch, sequence, hidden)``.

    Raises:
        ConfigError: When the ids are not read by one embedding layer of Keras or keras-hub.
    """
    ids = model.input["token_ids"]
    readers = [
        node
        for operation in model.operations
        for node in operation._inbound_nodes
        if any(tensor is ids for tensor in node.input_tensors)
    ]
    if len(readers) == 1 and isinstance(readers[0].operation, _EMBEDDINGS):
        return readers[0].output_tensors[0]
    names = [node.operation.name for node in readers]
    raise ConfigError(
        f"the token ids of {model.name!r} are read by {names}, not by one embedding layer of Keras or "
        "keras-hub, so its embeddings cannot be perturbed: use another backbone, or an objective that "
        "changes the texts themselves, such as 'word_augmented'."
    )


def split_at_embeddings(model: keras.Model) -> tuple[keras.Model, Callable[..., Any]]:
    """Cuts a text model behind the look-up of the tokens' embeddings, where texts become continuous.

    Args:
        model: Functional model with ``token_ids`` among its inputs.

    Returns:
        A model from the inputs to the embeddings of the tokens, ``(batch, sequence, hidden)``, and a
        function ``(inputs, training=False)`` to the outputs, which takes them as ``token_embeddings`` beside
        the inputs other than ``token_ids``. Both share the model's variables.

    Raises:
        ConfigError: When the ids are not read by one embedding layer of Keras or keras-hub.
    """
    embeddings = token_embeddings(model)
    others = {name: tensor for name, tensor in model.input.items() if name != "token_ids"}
    # A list: Keras would complain that the name of an inner tensor is not its key in a dict.
    above = keras.Model([embeddings, *others.values()], model.output, name="above")

    def rest(inputs: Mapping[str, Any], training: bool = False) -> Any:
        given = [inputs["token_embeddings"], *(inputs[name] for name in others)]
        return above(given, training=training)

    return keras.Model(model.input, embeddings, name="embed"), rest


def copy_backbone(backbone: keras.Model, *, dtype: str) -> keras.Model:
    """Copies a backbone, weights included, into another precision.

    Args:
        backbone: The backbone to copy.
        dtype: Keras dtype policy of the copy, such as ``"float32"``.

    Returns:
        A backbone that shares nothing with the first.
    """
    if isinstance(backbone, keras_hub.models.Backbone):
        twin = type(backbone).from_config({**backbone.get_config(), "dtype": dtype})
    else:

        def cloned(layer: keras.layers.Layer) -> keras.layers.Layer:
            # What scales pixels stays exact, and operators such as ``+`` have no precision of their own.
            if isinstance(layer, SCALING_LAYERS) or not isinstance(layer, keras.layers.Layer):
                return type(layer).from_config(layer.get_config())
            return type(layer).from_config({**layer.get_config(), "dtype": dtype})

        twin = keras.models.clone_model(backbone, clone_function=cloned)
    twin.set_weights(backbone.get_weights())
    return twin


def randomise_encoder(backbone: keras.Model, seed: int) -> None:
    """Gives an encoder random weights as BERT has them before its pretraining.

    Args:
        backbone: The encoder, which is changed in place.
        seed: Decides the weights.

    Reference:
        Devlin et al. 2019, BERT, arXiv:1810.04805: normal, cut at two standard deviations of 0.02.
    """
    for number, variable in enumerate(backbone.trainable_variables):
        kind = variable.path.rsplit("/", 1)[-1]
        if kind in ("bias", "beta"):
            initial = keras.initializers.Zeros()
        elif kind == "gamma":
            initial = keras.initializers.Ones()
        else:
            drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
            initial = keras.initializers.TruncatedNormal(stddev=0.02, seed=drawn)
        variable.assign(initial(variable.shape))
