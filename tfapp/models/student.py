"""The student of a text classifier: which parts of its teacher it begins with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from tfapp.data.kept_pieces import check_counts, choose_pieces
from tfapp.errors import ConfigError, nearest
from tfapp.models.classifier import Classifier
from tfapp.models.smaller import (
    check_can_shrink,
    check_layers,
    check_neurons,
    evenly_spaced,
    smaller_backbone,
)
from tfapp.models.text_classifier import TextClassifier

_LOG = logging.getLogger("tfapp")
VOCABULARIES = ("texts", "whole")


@dataclass(frozen=True)
class StudentParts:
    """Which parts of its teacher a student has.

    Attributes:
        layers: Numbers of the teacher's blocks, from 1, ascending.
        token_ids: The teacher's id of each of its pieces; None for the whole vocabulary.
        max_length: Most tokens of a text, and how many positions it has.
        intermediate_dim: Neurons of each feed-forward layer; None for all.
    """

    layers: tuple[int, ...]
    token_ids: tuple[int, ...] | None
    max_length: int
    intermediate_dim: int | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` gave."""
        ids = fields["token_ids"]
        return cls(
            tuple(fields["layers"]),
            None if ids is None else tuple(ids),
            fields["max_length"],
            fields["intermediate_dim"],
        )


def check_student(
    teacher: Classifier,
    *,
    num_layers: int | None = None,
    layers: Sequence[int] | None = None,
    vocabulary: str = "texts",
    min_count: int = 1,
    vocabulary_size: int | None = None,
    intermediate_dim: int | None = None,
) -> tuple[int, ...]:
    """Refuses what no student can be made of, or cannot be one.

    Args:
        teacher: The teacher.
        num_layers: As in `tfapp.distill`, as are all that follow.
        layers: Numbers of blocks.
        vocabulary: ``"texts"`` or ``"whole"``.
        min_count: How often a piece must occur.
        vocabulary_size: Most pieces.
        intermediate_dim: Neurons of each feed-forward layer.

    Returns:
        Numbers of the blocks that the student begins with, from 1.

    Raises:
        ConfigError: When settings are out of range or do not go together.
        WeightsError: When the teacher is no BERT.
    """
    if not isinstance(teacher, TextClassifier):
        raise ConfigError("only classifiers of texts can be distilled, and this one takes images.")
    check_can_shrink(teacher.backbone)
    check_neurons(teacher.backbone, intermediate_dim)
    if vocabulary not in VOCABULARIES:
        raise ConfigError(f"unknown vocabulary {vocabulary!r}; {nearest(vocabulary, VOCABULARIES)}")
    if vocabulary == "whole" and (min_count != 1 or vocabulary_size is not None):
        raise ConfigError(
            "min_count and vocabulary_size cut the vocabulary, and vocabulary = 'whole' keeps all of it: "
            "leave one of the two out."
        )
    if vocabulary == "texts":
        check_counts(teacher.preprocessor, min_count=min_count, vocabulary_size=vocabulary_size)
    blocks = len(teacher.backbone.transformer_layers)
    if layers is not None:
        if num_layers is not None:
            raise ConfigError("num_layers and layers both say which blocks are kept: leave one of them out.")
        check_layers(layers, blocks)
        return tuple(layers)
    return evenly_spaced((blocks + 1) // 2 if num_layers is None else num_layers, blocks)


def choose_parts(
    teacher: Classifier,
    texts: Sequence[str],
    *,
    num_layers: int | None = None,
    layers: Sequence[int] | None = None,
    vocabulary: Literal["texts", "whole"] = "texts",
    min_count: int = 1,
    vocabulary_size: int | None = None,
    intermediate_dim: int | None = None,
) -> StudentParts:
    """Decides which parts of its teacher a student has.

    Args:
        teacher: The teacher.
        texts: The texts that the student will learn from, which decide its vocabulary.
        num_layers: As in `tfapp.distill`, as are all that follow.
        layers: Numbers of blocks.
        vocabulary: ``"texts"`` or ``"whole"``.
        min_count: How often a piece must occur.
        vocabulary_size: Most pieces.
        intermediate_dim: Neurons of each feed-forward layer.

    Returns:
        The parts.

    Raises:
        ConfigError: When settings are out of range or do not go together.
        WeightsError: When the teacher is no BERT.
    """
    blocks = check_student(
        teacher,
        num_layers=num_layers,
        layers=layers,
        vocabulary=vocabulary,
        min_count=min_count,
        vocabulary_size=vocabulary_size,
        intermediate_dim=intermediate_dim,
    )
    tokenizer, ids = teacher.preprocessor, None
    if vocabulary == "texts":
        pieces = choose_pieces(tokenizer, texts, min_count=min_count, vocabulary_size=vocabulary_size)
        _, kept = tokenizer.cut(pieces)
        ids = tuple(kept.tolist())
    return StudentParts(blocks, ids, tokenizer.max_length, intermediate_dim)


def build_student(teacher: TextClassifier, parts: StudentParts) -> TextClassifier:
    """Builds a student from parts of its teacher, head included.

    Args:
        teacher: The teacher.
        parts: What is taken of it.

    Returns:
        A classifier with copies of the weights.

    Raises:
        ConfigError: When the teacher does not have these parts.
        WeightsError: When the teacher is no BERT.
    """
    tokenizer = teacher.preprocessor
    if parts.token_ids is None:
        tokenizer = type(tokenizer).from_config(tokenizer.get_config())
    else:
        tokenizer, _ = tokenizer.cut(parts.token_ids)
    tokenizer.max_length = parts.max_length
    student = TextClassifier(
        smaller_backbone(
            teacher.backbone,
            layers=parts.layers,
            token_ids=parts.token_ids,
            max_positions=parts.max_length,
            intermediate_dim=parts.intermediate_dim,
        ),
        classes=teacher.classes,
        preprocessor=tokenizer,
        pooling=teacher.pooling,
        dropout_rate=teacher.dropout_rate,
        preset=teacher.preset,
        built_length=parts.max_length,
    )
    student.head_layers[1].set_weights(teacher.head_layers[1].get_weights())
    whole = len(teacher.preprocessor.vocabulary)
    _LOG.info(
        "student: blocks %s of %d, %s of %s pieces, %.2f M parameters of %.2f M",
        ", ".join(map(str, parts.layers)),
        len(teacher.backbone.transformer_layers),
        f"{len(tokenizer.vocabulary):,}",
        f"{whole:,}",
        student.count_params() / 1e6,
        teacher.count_params() / 1e6,
    )
    return student
