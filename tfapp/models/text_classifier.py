"""The text classifier: a functional Keras model that carries its tokenizer and can be split in two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfapp.data.encoded import EncodedTexts
from tfapp.data.encoding import encode_texts
from tfapp.data.lengths import LengthReport
from tfapp.data.tokenizers import Tokenizer, read_tokenizer
from tfapp.models.classifier import Block, Classifier, Cut
from tfapp.models.encoders import encoder_blocks, pool, split_at_embeddings
from tfapp.models.single_text import single_text_logits


@keras.saving.register_keras_serializable("tfapp")
class TextClassifier(Classifier):
    """A text encoder with a classification head, from token ids to logits.

    Layers of the backbone that the chosen pooling does not use, such as BERT's pooler under mean pooling,
    are no part of the model, so every variable gets a gradient.

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

    read_preprocessor = staticmethod(read_tokenizer)

    def __init__(
        self,
        backbone: keras.Model,
        *,
        classes: Sequence[str],
        preprocessor: Tokenizer,
        pooling: str = "mean",
        dropout_rate: float = 0.1,
        preset: str = "",
        temperature: float = 1.0,
        built_length: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        features = pool(backbone, pooling)
        super().__init__(
            backbone=backbone,
            inputs=backbone.input,
            features=features,
            blocks=[Block((block,), hidden) for block, hidden in encoder_blocks(backbone)],
            classes=classes,
            preprocessor=preprocessor,
            settings={"pooling": pooling, "built_length": built_length},
            dropout_rate=dropout_rate,
            preset=preset,
            temperature=temperature,
            seed=seed,
            name=name,
        )

    @property
    def pooling(self) -> str:
        """How hidden states become one vector: ``"mean"``, ``"cls"`` or ``"pooler"``."""
        return str(self.settings["pooling"])

    @property
    def max_positions(self) -> int | None:
        """Most tokens that the backbone has positions for; None where there is no limit."""
        limit = getattr(self.backbone, "max_sequence_length", None)
        return None if limit is None else int(limit)

    @property
    def built_length(self) -> int | None:
        """The ``max_length`` that was asked for when the model was built, or None."""
        length: int | None = self.settings["built_length"]
        return length

    def encode_splits(
        self, splits: Mapping[str, Any], max_length: int | None
    ) -> tuple[dict[str, EncodedTexts], LengthReport]:
        """Encodes the texts of splits, and sets the tokenizer's ``max_length``; see `encode_texts`."""
        return encode_texts(
            self.preprocessor,
            {name: split.texts for name, split in splits.items()},
            max_length=max_length or self.built_length,
            positions=self.max_positions,
        )

    def cut(self, top: int) -> Cut:
        """Cuts below the top transformer blocks: hidden states and the padding mask cross the cut.

        Args:
            top: How many blocks are above the cut, from 1 up to ``num_blocks``.

        Returns:
            The cut, with ``hidden`` ``(batch, sequence, hidden)`` and ``padding_mask`` ``(batch, sequence)``.
        """
        blocks = self.blocks[-top:]
        below = blocks[0].enters
        inputs = {
            "hidden": keras.Input(below.shape[1:], dtype=below.dtype, name="hidden"),
            "padding_mask": keras.Input((None,), dtype="int32", name="padding_mask"),
        }
        hidden = inputs["hidden"]
        for block in blocks:
            hidden = block.layers[0](hidden, padding_mask=inputs["padding_mask"])
        features = pool(self.backbone, self.pooling, hidden=hidden, padding_mask=inputs["padding_mask"])
        return Cut({"hidden": below, "padding_mask": self.input["padding_mask"]}, inputs, features)

    def split_at_embeddings(self) -> tuple[keras.Model, Callable[..., Any]]:
        """Cuts the model behind the look-up of the tokens' embeddings, where texts become continuous.

        Returns:
            A model from the inputs to the embeddings of the tokens, ``(batch, sequence, hidden)``, and a
            function ``(inputs, training=False)`` to logits, which takes them as ``token_embeddings`` beside
            the inputs other than ``token_ids``. Both share this model's variables.

        Raises:
            ConfigError: When the backbone has no such place, as with a graph from TF-Hub.
        """
        return split_at_embeddings(self)

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
