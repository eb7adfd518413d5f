"""The text classifier: a functional Keras model that carries its tokenizer and can be split in two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import keras

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError
from tfapp.models.encoders import copy_backbone, encoder_blocks, pool
from tfapp.models.heads import make_head
from tfapp.models.single_text import single_text_logits


@dataclass
class _Parts:
    """What a classifier carries beside its layers.

    Keras wraps lists, tuples and modules that are set on a model, and would save them as layers; inside
    this object they stay what they are.
    """

    backbone: keras.Model
    blocks: list[tuple[keras.layers.Layer, keras.KerasTensor]]
    features: keras.KerasTensor
    head: tuple[keras.layers.Layer, keras.layers.Layer]
    classes: tuple[str, ...]
    preprocessor: WordPieceTokenizer
    pooling: str
    dropout_rate: float
    preset: str
    temperature: float
    built_length: int | None


@keras.saving.register_keras_serializable("tfapp")
class Classifier(keras.Model):  # type: ignore[misc]
    """A backbone with a classification head, from token ids to logits.

    The model shares its layers with ``backbone``. Layers of the backbone that the chosen pooling does not
    use, such as BERT's pooler under mean pooling, are no part of it, so every variable gets a gradient.

    Args:
        backbone: Functional encoder that takes ``token_ids``, ``padding_mask`` and mostly ``segment_ids``.
        classes: Names of the classes, in the order of the logits; 2 or more, all different.
        preprocessor: Tokenizer that makes the inputs from texts.
        pooling: ``"mean"`` over tokens, ``"cls"`` for the first token, ``"pooler"`` for BERT's own pooler.
        dropout_rate: Share of pooled features dropped in training, from 0 up to but not including 1.
        preset: Name of the preset that the backbone comes from; empty for a backbone made by hand.
        temperature: What the logits are divided by before the softmax; more than 0.
        built_length: The ``max_length`` that was asked for when the model was built; None leaves it to
            training.
        seed: Seed of the head's initial weights.
        name: Name of the Keras model.

    Raises:
        ConfigError: If the classes, the pooling, the dropout rate or the temperature cannot be used.
    """

    task = "single_label"

    def __init__(
        self,
        backbone: keras.Model,
        *,
        classes: Sequence[str],
        preprocessor: WordPieceTokenizer,
        pooling: str = "mean",
        dropout_rate: float = 0.1,
        preset: str = "",
        temperature: float = 1.0,
        built_length: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        names = tuple(str(name) for name in classes)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ConfigError(f"classes = {list(names)}: a classifier needs at least 2 different names.")
        head = make_head(len(names), dropout_rate, seed=seed)
        features = pool(backbone, pooling)
        super().__init__(inputs=dict(backbone.input), outputs=head[1](head[0](features)), name=name)
        self._parts = _Parts(
            backbone=backbone,
            blocks=encoder_blocks(backbone),
            features=features,
            head=head,
            classes=names,
            preprocessor=preprocessor,
            pooling=pooling,
            dropout_rate=dropout_rate,
            preset=preset,
            temperature=1.0,
            built_length=built_length,
        )
        self.temperature = temperature

    @property
    def backbone(self) -> keras.Model:
        """The encoder, whose layers are this model's own."""
        return self._parts.backbone

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self._parts.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self._parts.classes)

    @property
    def preprocessor(self) -> WordPieceTokenizer:
        """The tokenizer that makes the inputs from texts."""
        return self._parts.preprocessor

    @property
    def pooling(self) -> str:
        """How hidden states become one vector: ``"mean"``, ``"cls"`` or ``"pooler"``."""
        return self._parts.pooling

    @property
    def dropout_rate(self) -> float:
        """Share of pooled features dropped in training."""
        return self._parts.dropout_rate

    @property
    def preset(self) -> str:
        """Name of the preset that the backbone comes from; empty for one made by hand."""
        return self._parts.preset

    @property
    def blocks(self) -> list[keras.layers.Layer]:
        """The transformer blocks that `split` can cut between, from bottom to top."""
        return [block for block, _ in self._parts.blocks]

    @property
    def head_layers(self) -> tuple[keras.layers.Layer, keras.layers.Layer]:
        """The dropout and the dense layer between pooled features and logits."""
        return self._parts.head

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks that `split` can cut between; 0 if it can only cut at the head."""
        return len(self._parts.blocks)

    @property
    def max_positions(self) -> int | None:
        """Most tokens that the backbone has positions for; None where there is no limit."""
        limit = getattr(self._parts.backbone, "max_sequence_length", None)
        return None if limit is None else int(limit)

    @property
    def built_length(self) -> int | None:
        """The ``max_length`` that was asked for when the model was built, or None."""
        return self._parts.built_length

    @property
    def temperature(self) -> float:
        """What the logits are divided by before the softmax."""
        return self._parts.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0.0 < float(value) < float("inf"):
            raise ConfigError(f"temperature = {value}: it must be a positive number.")
        self._parts.temperature = float(value)

    def split(self, train: Literal["all", "head"] | int) -> tuple[keras.Model | None, keras.Model]:
        """Cuts the model where training stops, so that the part below can be computed once.

        Both parts share their variables with this model, and ``upper(lower(inputs))`` equals
        ``self(inputs)`` in inference mode.

        Args:
            train: ``"all"``, ``"head"``, or how many of the top blocks are trained beside the head, from
                1 up to ``num_blocks``.

        Returns:
            The lower model and the upper one. ``"all"`` gives ``(None, self)``. For ``"head"`` the lower one
            gives ``{"features": (batch, hidden)}``; for a number of blocks it gives ``{"hidden": (batch,
            sequence, hidden), "padding_mask": (batch, sequence)}``. The upper one maps that to logits.

        Raises:
            ConfigError: If there is no such cut.
        """
        if train == "all":
            return None, self
        parts = self._parts
        dropout, dense = parts.head
        if train == "head":
            lower = keras.Model(self.input, {"features": parts.features}, name="lower")
            features = keras.Input(parts.features.shape[1:], dtype=parts.features.dtype, name="features")
            return lower, keras.Model({"features": features}, dense(dropout(features)), name="upper")
        if isinstance(train, bool) or not isinstance(train, int) or not 1 <= train <= self.num_blocks:
            choices = "'all', 'head'" + (f" or 1 to {self.num_blocks} top blocks" if self.num_blocks else "")
            raise ConfigError(f"train = {train!r}: this backbone can be trained as {choices}.")
        below = parts.blocks[-train][1]
        padding_mask = self.input["padding_mask"]
        lower = keras.Model(self.input, {"hidden": below, "padding_mask": padding_mask}, name="lower")
        hidden_input = keras.Input(below.shape[1:], dtype=below.dtype, name="hidden")
        mask_input = keras.Input((None,), dtype="int32", name="padding_mask")
        hidden = hidden_input
        for block, _ in parts.blocks[-train:]:
            hidden = block(hidden, padding_mask=mask_input)
        features = pool(parts.backbone, parts.pooling, hidden=hidden, padding_mask=mask_input)
        inputs = {"hidden": hidden_input, "padding_mask": mask_input}
        return lower, keras.Model(inputs, dense(dropout(features)), name="upper")

    @property
    def cannot_export(self) -> dict[str, str]:
        """Artifacts that cannot be made of this model, and why not; see `tfapp.export` for their names."""
        reasons: dict[str, str] = {}
        for layer in self._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.Lambda):
                reasons["keras"] = f"{layer.name} is a Lambda layer: loading the file would run code from it"
            elif type(layer).__module__.partition(".")[0] not in ("keras", "keras_hub"):
                reasons["keras"] = (
                    f"{type(layer).__name__} is no layer of Keras or keras-hub, so the file would not load "
                    "without the code that the layer comes from"
                )
            reasons.update(getattr(layer, "cannot_export", {}))
        return reasons

    def declared(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Picks the tensors that the backbone takes; a tokenizer also gives segment ids to one without them.

        Args:
            tensors: What the preprocessor gives, by name.

        Returns:
            Those that the model declares as inputs.
        """
        return {name: tensors[name] for name in self.input}

    def single_logits(self, texts: Any) -> Any:
        """Computes the logits of one text, without padding where the backbone and short texts allow it.

        Args:
            texts: One string ``(1,)``.

        Returns:
            float32 ``(1, num_classes)``.
        """
        if self.preprocessor.long_texts == "windows":
            logits = self(self.declared(self.preprocessor.windows(texts)), training=False)
            return keras.ops.mean(logits, axis=0, keepdims=True)
        shorter = single_text_logits(self)
        if shorter is not None:
            return shorter(texts)
        return self(self.declared(self.preprocessor(texts)), training=False)

    def plain(self) -> keras.Model:
        """Returns the same graph as a plain functional model of Keras and keras-hub layers.

        Returns:
            A model that shares the weights, saves to a ``.keras`` file, and loads without tfapp.
        """
        return keras.Model(self.input, self.output, name=self.name)

    def float32_copy(self) -> Classifier:
        """Returns a copy that computes in float32, as converters need it.

        Returns:
            A model with copies of the weights, and the same tokenizer, classes and temperature.
        """
        config = {**self._own_config(), "backbone": copy_backbone(self.backbone, dtype="float32")}
        twin = type(self)(**config)
        twin.set_weights(self.get_weights())
        return twin

    def _own_config(self) -> dict[str, Any]:
        parts = self._parts
        return {
            "backbone": parts.backbone,
            "classes": parts.classes,
            "preprocessor": parts.preprocessor,
            "pooling": parts.pooling,
            "dropout_rate": parts.dropout_rate,
            "preset": parts.preset,
            "temperature": parts.temperature,
            "built_length": parts.built_length,
            "name": self.name,
        }

    def get_config(self) -> dict[str, Any]:
        """Returns what rebuilds the model without its weights."""
        return {
            **self._own_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": self.preprocessor.get_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Rebuilds a model from `get_config`'s answer.

        Args:
            config: What `get_config` returned.
            custom_objects: Classes that Keras does not know by name.

        Returns:
            An equal model with new weights.
        """
        arguments = dict(config)
        arguments["backbone"] = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        arguments["preprocessor"] = WordPieceTokenizer.from_config(config["preprocessor"])
        return cls(**arguments)
