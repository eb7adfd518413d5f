"""Where a batch is perturbed in training: pixels, token embeddings, or features of what is frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.models import Classifier
from tfapp.models.encoders import split_at_embeddings
from tfapp.models.folded import folded_inference
from tfapp.models.fused import FusedParts
from tfapp.objectives import Objective, Perturbable

PIXEL_BOUNDS = (0.0, 255.0)
_TOKEN_RANK = 3
_PLACES = ("token_embeddings", "features", "hidden", "pixels")

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Perturbing:
    """How batches of a phase are perturbed.

    Attributes:
        embed: From the inputs to the embeddings of their tokens; None where nothing is embedded.
        from_embeddings: ``(inputs, training) -> logits`` where ``token_embeddings`` stand among the inputs;
            None where the network's own pass takes them.
        inference: A faster pass in inference mode, right in its gradients with respect to the inputs only.
    """

    embed: Forward | None = None
    from_embeddings: Forward | None = None
    inference: Forward | None = None

    def entering(self, inputs: Mapping[str, Any], forward: Forward) -> Perturbable:
        """Finds what enters the trained part of the model.

        Args:
            inputs: What enters it, by name.
            forward: ``(inputs, training) -> logits``.

        Returns:
            The place.
        """
        if self.embed is not None:
            inputs = {**inputs, "token_embeddings": self.embed(inputs)}
            forward = self.from_embeddings or forward
        return _place(inputs, forward, self.inference)


def _place(inputs: Mapping[str, Any], forward: Forward, inference: Forward | None) -> Perturbable:
    """Finds the values among the inputs that are perturbed."""
    name = next((place for place in _PLACES if place in inputs), None)
    if name is None:
        raise ConfigError(
            f"among the inputs {sorted(inputs)} is nothing continuous, which this objective perturbs."
        )
    values = tf.cast(inputs[name], tf.float32)
    mask = inputs.get("padding_mask") if len(values.shape) == _TOKEN_RANK else None

    def logits(perturbed: Any, training: bool = False) -> Any:
        given = {**inputs, name: perturbed}
        if inference is not None and not training:
            return tf.cast(inference(given), tf.float32)
        return tf.cast(forward(given, training=training), tf.float32)

    return Perturbable(values, mask, PIXEL_BOUNDS if name == "pixels" else None, logits)


def make_perturbing(
    model: Classifier,
    train: Literal["all", "head"] | int,
    objective: Objective,
    *,
    fused: FusedParts | None,
    precision: str,
) -> Perturbing:
    """Prepares what an objective needs to perturb the batches of a phase.

    Args:
        model: The classifier.
        train: What the phase trains, as in `Classifier.split`.
        objective: The objective; one without ``perturbs`` needs nothing.
        fused: The faster forward pass of the phase, or None.
        precision: ``"float32"`` or ``"mixed_bfloat16"``.

    Returns:
        The preparation.

    Raises:
        ConfigError: When the model has no place to perturb.
    """
    if not getattr(objective, "perturbs", False):
        return Perturbing()
    if train == "all" and "token_ids" in model.input:
        if fused is not None and fused.embed is not None:
            return Perturbing(embed=fused.embed)
        embed, rest = split_at_embeddings(model)
        return Perturbing(embed=embed, from_embeddings=rest)
    trained_norm = train == "all" and getattr(model, "train_batch_norm", False)
    return Perturbing(inference=folded_inference(model, precision=precision) if trained_norm else None)
