"""A text classifier's forward pass with the hidden states between its blocks, which distillation compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfapp.errors import WeightsError
from tfapp.models.classifier import Classifier
from tfapp.models.encoders import encoder_blocks, hidden_states
from tfapp.models.fused import FusedParts


def hidden_pass(model: Classifier, fused: FusedParts | None) -> Callable[..., Any]:
    """Makes a forward pass that also gives what enters the first block and what each block gives.

    Args:
        model: The classifier.
        fused: Its faster forward pass of all that it has, or None where Keras's own serves.

    Returns:
        A function ``(inputs, training=False)`` to logits ``(batch, num_classes)`` and a list of hidden
        states ``(batch, sequence, hidden)``, one more than there are blocks.

    Raises:
        WeightsError: When the backbone's blocks are no plain chain.
    """
    if fused is not None and fused.states is not None:
        return fused.states
    blocks = encoder_blocks(model.backbone)
    if not blocks:
        raise WeightsError(
            f"the blocks of the backbone {model.backbone.name!r} are no plain chain whose hidden states can "
            "be compared: distil with hidden_weight = 0."
        )
    between = [enters for _, enters in blocks]
    # A list: Keras would complain that the name of an inner tensor is not its key in a dict.
    outputs = [model.output, *between, hidden_states(model.backbone)]
    watched = keras.Model(model.input, outputs, name="watched")

    def states(inputs: Any, training: bool = False) -> Any:
        logits, *passed = watched(inputs, training=training)
        return logits, passed

    return states
