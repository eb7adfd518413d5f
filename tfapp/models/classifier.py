"""What every classifier is: a functional Keras model with a head, that can be split in two for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import keras

from tfapp.errors import ConfigError
from tfapp.models.encoders import copy_backbone
from tfapp.models.heads import make_head


@dataclass(frozen=True)
class Block:
    """A part of a backbone that is trained or frozen as one.

    Attributes:
        layers: Its layers.
        enters: The one tensor that it computes from, beside masks.
    """

    layers: tuple[keras.layers.Layer, ...]
    enters: keras.KerasTensor


@dataclass
class _Parts:
    """What a classifier carries beside its layers.

    Keras wraps lists, tuples and modules that are set on a model, and would save them as layers; inside
    this object they stay what they are.
    """

    backbone: keras.Model
    features: keras.KerasTensor
    blocks: tuple[Block, ...]
    head: tuple[keras.layers.Layer, keras.layers.Layer]
    classes: tuple[str, ...]
    preprocessor: Any
    settings: dict[str, Any]
    preset: str
    temperature: float


@dataclass(frozen=True)
class Cut:
    """Where a model is cut below its top blocks.

    Attributes:
        below: What the lower part gives, by name: tensors of the whole model.
        inputs: The same as inputs of the upper part.
        features: What the head takes, computed from ``inputs``.
    """

    below: dict[str, keras.KerasTensor]
    inputs: dict[str, keras.KerasTensor]
    features: keras.KerasTensor


class Classifier(keras.Model):  # type: ignore[misc]
    """A backbone with a classification head, from tensors to logits; the base of one class a kind of input.

    The model shares its layers with ``backbone``.

    Args:
        backbone: Functional model.
        inputs: The model's input tensors by name.
        features: What the head takes ``(batch, hidden)``, computed from ``inputs``.
        blocks: The blocks of the backbone, from bottom to top, between which it can be cut.
        classes: Names of the classes, in the order of the logits; 2 or more, all different.
        preprocessor: Makes the inputs from what users have, in training and in exported graphs.
        settings: Plain values that, with backbone, classes and preprocessor, rebuild the model.
        dropout_rate: Share of pooled features dropped in training, from 0 up to but not including 1.
        preset: Name of the preset that the backbone comes from; empty for a backbone made by hand.
        temperature: What the logits are divided by before the softmax; more than 0.
        seed: Seed of the head's initial weights.
        name: Name of the Keras model.

    Raises:
        ConfigError: If the classes, the dropout rate or the temperature cannot be used.
    """

    task = "single_label"
    read_preprocessor: Callable[[Mapping[str, Any]], Any]

    def __init__(
        self,
        *,
        backbone: keras.Model,
        inputs: Mapping[str, keras.KerasTensor],
        features: keras.KerasTensor,
        blocks: Sequence[Block],
        classes: Sequence[str],
        preprocessor: Any,
        settings: Mapping[str, Any],
        dropout_rate: float,
        preset: str,
        temperature: float,
        seed: int,
        name: str | None,
    ) -> None:
        names = tuple(str(name) for name in classes)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ConfigError(f"classes = {list(names)}: a classifier needs at least 2 different names.")
        head = make_head(len(names), dropout_rate, seed=seed)
        super().__init__(inputs=dict(inputs), outputs=head[1](head[0](features)), name=name)
        self._parts = _Parts(
            backbone=backbone,
            features=features,
            blocks=tuple(blocks),
            head=head,
            classes=names,
            preprocessor=preprocessor,
            settings={**settings, "dropout_rate": dropout_rate},
            preset=preset,
            temperature=1.0,
        )
        self.temperature = temperature

    @property
    def backbone(self) -> keras.Model:
        """The backbone, whose layers are this model's own."""
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
    def preprocessor(self) -> Any:
        """What makes the inputs from raw features."""
        return self._parts.preprocessor

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that describe how the model was built, by name."""
        return dict(self._parts.settings)

    @property
    def dropout_rate(self) -> float:
        """Share of pooled features dropped in training."""
        return float(self._parts.settings["dropout_rate"])

    @property
    def preset(self) -> str:
        """Name of the preset that the backbone comes from; empty for one made by hand."""
        return self._parts.preset

    @property
    def features(self) -> keras.KerasTensor:
        """What the head takes, ``(batch, hidden)``."""
        return self._parts.features

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that `split` can cut below, from bottom to top."""
        return self._parts.blocks

    @property
    def num_blocks(self) -> int:
        """Number of blocks that `split` can cut between; 0 if it can only cut at the head."""
        return len(self._parts.blocks)

    @property
    def head_layers(self) -> tuple[keras.layers.Layer, keras.layers.Layer]:
        """The dropout and the dense layer between pooled features and logits."""
        return self._parts.head

    @property
    def temperature(self) -> float:
        """What the logits are divided by before the softmax."""
        return self._parts.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0.0 < float(value) < float("inf"):
            raise ConfigError(f"temperature = {value}: it must be a positive number.")
        self._parts.temperature = float(value)

    def encode_splits(
        self, splits: Mapping[str, Any], max_length: int | None
    ) -> tuple[dict[str, Any], Any | None]:
        """Encodes the features of splits for training, and settles what the data decide.

        Args:
            splits: Splits by name, ``"train"`` among them, each with ``features``.
            max_length: Most tokens of a text; None leaves it to the data. Images have none.

        Returns:
            What `preprocessor.make_rows` takes, for each split, and a report of lengths where there are any.

        Raises:
            ConfigError: When ``max_length`` cannot be used.
        """
        raise NotImplementedError

    def cut(self, top: int) -> Cut:
        """Finds where the model is cut below its top blocks.

        Args:
            top: How many blocks are above the cut, from 1 up to ``num_blocks``.

        Returns:
            The cut.
        """
        raise NotImplementedError

    def split(
        self, train: Literal["all", "head"] | int, *, beside: keras.layers.Layer | None = None
    ) -> tuple[keras.Model | None, keras.Model]:
        """Cuts the model where training stops, so that the part below can be computed once.

        Both parts share their variables with this model, and ``upper(lower(inputs))`` equals
        ``self(inputs)`` in inference mode.

        Args:
            train: ``"all"``, ``"head"``, or how many of the top blocks are trained beside the head, from
                1 up to ``num_blocks``.
            beside: Another layer from features to logits, which stand behind the model's own in the upper
                part's answer: the head of another task.

        Returns:
            The lower model and the upper one. ``"all"`` gives ``(None, self)``. For ``"head"`` the lower one
            gives ``{"features": (batch, hidden)}``; for a number of blocks what enters the lowest of them.
            The upper one maps that to logits.

        Raises:
            ConfigError: If there is no such cut.
        """
        if train == "all":
            if beside is None:
                return None, self
            return None, keras.Model(self.input, self.head_logits(self.features, beside=beside), name="upper")
        if train == "head":
            features = keras.Input(self.features.shape[1:], dtype=self.features.dtype, name="features")
            cut = Cut({"features": self.features}, {"features": features}, features)
        elif isinstance(train, bool) or not isinstance(train, int) or not 1 <= train <= self.num_blocks:
            choices = "'all', 'head'" + (f" or 1 to {self.num_blocks} top blocks" if self.num_blocks else "")
            raise ConfigError(f"train = {train!r}: this backbone can be trained as {choices}.")
        else:
            cut = self.cut(train)
        lower = keras.Model(self.input, cut.below, name="lower")
        return lower, keras.Model(cut.inputs, self.head_logits(cut.features, beside=beside), name="upper")

    def head_logits(
        self, features: Any, *, beside: keras.layers.Layer | None = None, training: bool | None = None
    ) -> Any:
        """Computes what the head makes of features, symbolic or not.

        Args:
            features: Pooled features ``(batch, hidden)``.
            beside: As in `split`.
            training: Whether dropout is on; None leaves it to the call of the model.

        Returns:
            float32 ``(batch, num_classes)``, with the logits of ``beside`` behind.
        """
        dropout, dense = self._parts.head
        kept = dropout(features, training=training)
        return dense(kept) if beside is None else keras.ops.concatenate([dense(kept), beside(kept)], axis=-1)

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

    def plain(self) -> keras.Model:
        """Returns the same graph as a plain functional model of Keras and keras-hub layers.

        Returns:
            A model that shares the weights, saves to a ``.keras`` file, and loads without tfapp.
        """
        return keras.Model(self.input, self.output, name=self.name)

    def with_classes(self, classes: Sequence[str], *, seed: int = 0) -> Self:
        """Returns a classifier of other classes on the same backbone and with the same preprocessor.

        Args:
            classes: Names of the classes, in the order of the logits; 2 or more, all different.
            seed: Seed of the new head's initial weights.

        Returns:
            A model that shares the backbone's weights, so that training one of the two changes the other.
        """
        config = {**self._own_config(), "classes": tuple(classes), "temperature": 1.0, "name": None}
        return type(self)(**config, seed=seed)

    def float32_copy(self) -> Self:
        """Returns a copy that computes in float32, as converters need it.

        Returns:
            A model with copies of the weights, and the same preprocessor, classes and temperature.
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
            **parts.settings,
            "preset": parts.preset,
            "temperature": parts.temperature,
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
        arguments["preprocessor"] = cls.read_preprocessor(config["preprocessor"])
        return cls(**arguments)
